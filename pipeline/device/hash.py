"""A counter-based hash: 32 random bits from a seed, a stream and an index, the same on every device. Knows no model."""

from torch import Tensor

WORD = 0xFFFFFFFF  # 32 bits, kept in int64, where a right shift brings in no sign bits
FACTORS = (0x7FEB352D, 0x21F0AAAD)  # odd; below 2^31, so that products fit into 63 bits
OTHER = 0x9E3779B9  # makes the two halves of a seed count differently


def random_bits(seeds: Tensor, steps: Tensor, tokens: Tensor) -> Tensor:
    """32 pseudorandom bits each, as int64; the same on every device. Shapes are broadcast."""
    low = mix(mix(seeds & WORD) ^ steps)
    high = mix(mix((seeds >> 32) ^ OTHER) ^ steps)
    return mix(mix(tokens ^ low) ^ high)


def mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words: each bit of `x` flips about half of the result's bits."""
    for factor in FACTORS:
        x = ((x ^ (x >> 16)) * factor) & WORD
    return x ^ (x >> 15)
