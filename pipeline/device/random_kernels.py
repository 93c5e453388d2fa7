"""`random.normal` as a Triton kernel for CUDA. Plain PyTorch passes over memory some fifty times, in int64."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.device.hash import FACTORS, OTHER

PAIRS = 512  # drawn by each program


@triton.jit
def mix(x, FACTOR_1: tl.constexpr, FACTOR_2: tl.constexpr):
    x = (x ^ (x >> 16)) * FACTOR_1
    x = (x ^ (x >> 16)) * FACTOR_2
    return x ^ (x >> 15)


@triton.jit
def _normal(
    seeds, out, count, STREAM: tl.constexpr, OTHER: tl.constexpr, FACTOR_1: tl.constexpr, FACTOR_2: tl.constexpr,
    RADIANS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    seed = tl.load(seeds + row)
    low = mix(mix(seed.to(tl.uint32), FACTOR_1, FACTOR_2) ^ STREAM, FACTOR_1, FACTOR_2)
    high = mix(mix((seed >> 32).to(tl.uint32) ^ OTHER, FACTOR_1, FACTOR_2) ^ STREAM, FACTOR_1, FACTOR_2)
    first = ((block * PAIRS + tl.arange(0, PAIRS)) * 2).to(tl.uint32)
    far = mix(mix(first ^ low, FACTOR_1, FACTOR_2) ^ high, FACTOR_1, FACTOR_2).to(tl.float32)
    where = mix(mix((first + 1) ^ low, FACTOR_1, FACTOR_2) ^ high, FACTOR_1, FACTOR_2).to(tl.float32)
    radius = tl.sqrt(-2 * tl.log((far + 0.5) * 2.0**-32))
    angle = where * RADIANS
    at = block * PAIRS * 2 + tl.arange(0, 2 * PAIRS)
    tl.store(out + row * count + at, tl.interleave(radius * tl.cos(angle), radius * tl.sin(angle)), mask=at < count)


def normal(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Standard normal. seeds (B,) int64, 0 or more; returns (B, count) float32"""
    out = torch.empty(len(seeds), count, device=seeds.device)
    _normal[(len(seeds), triton.cdiv(count, 2 * PAIRS))](
        seeds, out, count, STREAM=stream, OTHER=OTHER, FACTOR_1=FACTORS[0],
        FACTOR_2=FACTORS[1], RADIANS=2 * math.pi * 2.0**-32, PAIRS=PAIRS,
    )  # fmt: skip
    return out
