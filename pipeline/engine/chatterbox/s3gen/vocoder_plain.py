"""The vocoder's operations in plain PyTorch, for CPU and MPS; `vocoder_kernels` has the same ones for CUDA.

A batch is (B, C, T), computed in FP32; of row b the first live[b] of T count, and what is returned is 0 beyond them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.hash import WORD

SMALL = 1e-9  # stock's, against an alpha of 0


def within(x: Tensor, live: Tensor) -> Tensor:
    """`x` with 0 beyond each row's end, whatever was there. x (B, C, T); live (B,)"""
    beyond = torch.arange(x.shape[2], device=x.device) >= live[:, None, None]  # (B, 1, T)
    return x.masked_fill(beyond, 0.0)


def snake(x: Tensor, alpha: Tensor, live: Tensor) -> Tensor:
    """x + sin^2(alpha x) / alpha, of Ziyin, Hartwig and Ueda (2020). x (B, C, T); alpha (C,); live (B,)"""
    x, alpha = within(x, live), alpha[:, None]
    return (x + (x * alpha).sin().square() / (alpha + SMALL)).to(x.dtype)  # 0 stays 0


def add_snake(update: Tensor, residual: Tensor, alpha: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """The sum's snake, and the sum. (B, C, T) each; alpha (C,); live (B,)"""
    total = within(update + residual, live)
    return snake(total, alpha, live), total


def leaky_mean(updates: Sequence[Tensor], residuals: Sequence[Tensor], slope: float, live: Tensor) -> Tensor:
    """The leaky ReLU of the mean of three sums of an update and a residual. (B, C, T) each; live (B,)"""
    total = sum(update.float() + residual.float() for update, residual in zip(updates, residuals, strict=True))
    return within(F.leaky_relu(total / len(updates), slope), live).to(updates[0].dtype)


def harmonics(start: Tensor, step: Tensor, offsets: Tensor, weight: Tensor, frame: int) -> Tensor:
    """Sines of H frequencies that are constant within a frame of so many samples, weighted and summed.

    start (B, H, T), where in its period a sine is at the frame's start, and step (B, H, T), how far a sample moves it:
    int64 of 32 bits, of which 2^32 are a period. offsets (B, H) radians; weight (H,). (B, T * frame) float32
    """
    samples = torch.arange(1, frame + 1, device=start.device)  # a frame's first sample is one step on
    total = torch.zeros(1, device=start.device)
    for begin, advance, offset, share in zip(start.unbind(1), step.unbind(1), offsets.unbind(1), weight, strict=True):
        turn = (begin[..., None] + advance[..., None] * samples) & WORD  # (B, T, frame)
        angle = turn.float() * (2 * math.pi * 2.0**-32) + offset[:, None, None]
        total = total + share * angle.sin()
    return total.flatten(1)
