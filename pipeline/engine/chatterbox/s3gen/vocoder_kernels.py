"""The vocoder's operations as Triton kernels, for CUDA; `vocoder_plain` has the same functions in plain PyTorch.

Each is one pass over memory that reads nothing behind a row's end. Tensors are contiguous; arithmetic is FP32.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.engine.chatterbox.s3gen.vocoder_plain import SMALL

BLOCK = 1024  # positions of one channel that a program computes


@triton.jit
def _place(live, channels, length, BLOCK: tl.constexpr):
    """A program's channel, its positions' offsets in a (B, C, T) tensor, which of them exist, and which are valid."""
    row = tl.program_id(0)  # of B * C
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    end = tl.load(live + row // channels)
    return row % channels, row.to(tl.int64) * length + position, position < length, position < end


@triton.jit
def _read(x, at, there):
    return tl.load(x + at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _snaked(x, alpha, SMALL: tl.constexpr):
    sine = tl.sin(x * alpha)
    return x + sine * sine * (1 / (alpha + SMALL))


@triton.jit
def _snake(x, alphas, live, out, channels, length, SMALL: tl.constexpr, BLOCK: tl.constexpr):
    channel, at, there, counts = _place(live, channels, length, BLOCK)
    value = _read(x, at, there & counts)
    tl.store(out + at, _snaked(value, tl.load(alphas + channel), SMALL), mask=there)


@triton.jit
def _add_snake(update, residual, alphas, live, out, total, channels, length, SMALL: tl.constexpr, BLOCK: tl.constexpr):
    channel, at, there, counts = _place(live, channels, length, BLOCK)
    value = _read(update, at, there & counts)
    value += _read(residual, at, there & counts)
    tl.store(total + at, value, mask=there)
    tl.store(out + at, _snaked(value, tl.load(alphas + channel), SMALL), mask=there)


@triton.jit
def _leaky_mean(
    update_1, update_2, update_3, residual_1, residual_2, residual_3, live, out, channels, length, slope,
    BLOCK: tl.constexpr,
):  # fmt: skip
    _, at, there, counts = _place(live, channels, length, BLOCK)
    read = there & counts
    value = _read(update_1, at, read) + _read(residual_1, at, read)
    value += _read(update_2, at, read) + _read(residual_2, at, read)
    value += _read(update_3, at, read) + _read(residual_3, at, read)
    value = value / 3
    tl.store(out + at, tl.where(value < 0, value * slope, value), mask=there)


def snake(x: Tensor, alpha: Tensor, live: Tensor) -> Tensor:
    """x + sin^2(alpha x) / alpha, of Ziyin, Hartwig and Ueda (2020). x (B, C, T); alpha (C,); live (B,)"""
    out = torch.empty_like(x)
    _snake[_grid(x)](x, alpha, live, out, *x.shape[1:], SMALL=SMALL, BLOCK=BLOCK)
    return out


def add_snake(update: Tensor, residual: Tensor, alpha: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Snake of the sum, and the sum. (B, C, T) each; alpha (C,); live (B,)"""
    out, total = torch.empty_like(update), torch.empty_like(update)
    _add_snake[_grid(update)](update, residual, alpha, live, out, total, *update.shape[1:], SMALL=SMALL, BLOCK=BLOCK)
    return out, total


def leaky_mean(updates: Sequence[Tensor], residuals: Sequence[Tensor], slope: float, live: Tensor) -> Tensor:
    """Leaky ReLU of the mean of three sums, update + residual. (B, C, T) each; live (B,)"""
    out = torch.empty_like(updates[0])
    _leaky_mean[_grid(out)](*updates, *residuals, live, out, *out.shape[1:], slope, BLOCK=BLOCK)
    return out


def _grid(x: Tensor) -> tuple[int, int]:
    batch, channels, length = x.shape
    return batch * channels, triton.cdiv(length, BLOCK)


@triton.jit
def _harmonics(
    start, step, offsets, weight, out, frames, COUNT: tl.constexpr, FRAME: tl.constexpr, RADIANS: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    row, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sample = tl.arange(0, SIZE)  # as many lanes as the next power of two
    total = tl.zeros([SIZE], tl.float32)
    for harmonic in range(COUNT):
        at = (row * COUNT + harmonic) * frames + number
        begin, advance = tl.load(start + at).to(tl.uint32), tl.load(step + at).to(tl.uint32)
        turn = begin + advance * (sample + 1).to(tl.uint32)  # overflow drops whole periods
        angle = turn.to(tl.float32) * RADIANS + tl.load(offsets + row * COUNT + harmonic)
        total += tl.load(weight + harmonic) * tl.sin(angle)
    tl.store(out + (row * frames + number) * FRAME + sample, total, mask=sample < FRAME)


def sum_harmonics(start: Tensor, step: Tensor, offsets: Tensor, weight: Tensor, frame: int) -> Tensor:
    """The weighted sum (B, T * frame) float32 of H sines whose frequencies are constant within a frame.

    start (B, H, T): phase at the frame's start; step (B, H, T): phase of one sample; both int64, with 2^32 as a period.
    offsets (B, H) radians; weight (H,); frame: samples in a frame.
    """
    batch, count, frames = start.shape
    out = offsets.new_empty(batch, frames * frame)
    _harmonics[(batch, frames)](
        start, step, offsets, weight, out, frames,
        COUNT=count, FRAME=frame, RADIANS=2 * math.pi * 2.0**-32, SIZE=triton.next_power_of_2(frame),
    )  # fmt: skip
    return out
