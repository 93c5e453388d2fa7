"""Random numbers by counter: a hash of an utterance's seed, a stream and an index. Knows nothing of what they are for.

A row's numbers depend on nothing but its own seed, and the first n are the same however many are drawn. A stream is a
number of 32 bits that says what is drawn.
"""

import math

import torch
from torch import Tensor

from pipeline.device.graphs import compiles
from pipeline.device.hash import random_bits


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """In [0, 1), as multiples of 2^-24. seeds (B,) int64, from 0 on; (B, count) float32"""
    return (_bits(seeds, stream, count) >> 8).float() * 2.0**-24


def normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Of mean 0 and variance 1, never beyond 6.8. seeds (B,) int64, from 0 on; (B, count) float32

    On CUDA in one pass over memory, and equal to what other devices draw but for the rounding of log, cos and sin.
    """
    if compiles(seeds.device):
        from pipeline.device.random_kernels import normal as draw  # imports Triton

        return draw(seeds, stream, count)
    return plain_normal(seeds, stream, count)


def plain_normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Two at a time, as Box and Muller do: a point's distance from the origin and its direction are independent."""
    far, where = _bits(seeds, stream, count + count % 2).float().view(len(seeds), -1, 2).unbind(2)  # (B, pairs) each
    radius = (-2 * torch.log((far + 0.5) * 2.0**-32)).sqrt()
    angle = where * (2 * math.pi * 2.0**-32)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :count]


def exponential(bits: Tensor) -> Tensor:
    """Of rate 1, from 32 random bits. Near 0, where draws are decided, all of them count."""
    uniform = (bits.float() + 0.5) * 2.0**-32
    return -torch.log1p(-uniform.clamp(max=1 - 2.0**-24))  # never infinite: a share over it would be 0


def _bits(seeds: Tensor, stream: int, count: int) -> Tensor:
    """32 bits of int64 each. (B, count)"""
    stream_number = torch.full_like(seeds, stream)[:, None]
    return random_bits(seeds[:, None], stream_number, torch.arange(count, device=seeds.device))
