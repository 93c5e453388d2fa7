"""A counter-based hash: 32 random bits of a seed, a stream and an index, the same on every device. Knows no model."""

from torch import Tensor

WORD = 0xFFFFFFFF  # 32 bits, kept in int64, where no shift sees a sign
FACTORS = (0x7FEB352D, 0x21F0AAAD)  # odd and below 2^31, so that no product leaves 63 bits
OTHER = 0x9E3779B9  # lets the halves of a seed count differently


def random_bits(seeds: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
    """32 bits of int64 that look random; the same on every device. Shapes are broadcast."""
    low = mix(mix(seeds & WORD) ^ steps)
    high = mix(mix((seeds >> 32) ^ OTHER) ^ steps)
    return mix(mix(tokens ^ low) ^ high)


def mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words in which every bit of `x` moves about half of the others."""
    for factor in FACTORS:
        x = ((x ^ (x >> 16)) * factor) & WORD
    return x ^ (x >> 15)
