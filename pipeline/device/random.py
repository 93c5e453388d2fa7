"""Random numbers by counter: a hash of an utterance's seed, a stream and an index. Knows nothing of what they are for.

A row's numbers depend only on its own seed, and the first n are the same however many are drawn. A stream is a 32-bit
number, one for each purpose of drawing.
"""

import math

import torch
from torch import Tensor

from pipeline.device.graphs import compiles
from pipeline.device.hash import random_bits


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Uniform in [0, 1), multiples of 2^-24. seeds (B,) int64, 0 or more; returns (B, count) float32"""
    return (_bits(seeds, stream, count) >> 8).float() * 2.0**-24


def normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Standard normal, between -6.8 and 6.8. seeds (B,) int64, 0 or more; returns (B, count) float32

    On CUDA it takes one pass over memory. Devices differ only by the rounding of log, cos and sin.
    """
    if compiles(seeds.device):
        from pipeline.device.random_kernels import normal as draw  # imports Triton

        return draw(seeds, stream, count)
    return plain_normal(seeds, stream, count)


def plain_normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """`normal` in plain PyTorch, in pairs by the Box-Muller transform: radius and angle of a random point."""
    pairs = _bits(seeds, stream, count + count % 2).float().view(len(seeds), -1, 2)
    for_radius, for_angle = pairs.unbind(2)  # (B, pairs) each
    radius = (-2 * torch.log((for_radius + 0.5) * 2.0**-32)).sqrt()
    angle = for_angle * (2 * math.pi * 2.0**-32)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2).flatten(1)[:, :count]


def exponential(bits: Tensor) -> Tensor:
    """Exponential of rate 1, from 32 random bits. All bits count near 0, where the least of many draws lies."""
    uniform = (bits.float() + 0.5) * 2.0**-32
    return -torch.log1p(-uniform.clamp(max=1 - 2.0**-24))  # finite: a probability divided by it must not be 0


def _bits(seeds: Tensor, stream: int, count: int) -> Tensor:
    """32 random bits each, as int64. (B, count)"""
    stream_number = torch.full_like(seeds, stream)[:, None]
    return random_bits(seeds[:, None], stream_number, torch.arange(count, device=seeds.device))
