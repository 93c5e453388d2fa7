"""The vocoder's operations in plain PyTorch, for CPU and MPS; `vocoder_kernels` has the same functions for CUDA.

Batches are (B, C, T), arithmetic is FP32. The first live[b] positions of row b are valid; results are 0 behind them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.hash import WORD

SMALL = 1e-9  # as in stock, for an alpha of 0


def mask_padding(x: Tensor, live: Tensor) -> Tensor:
    """`x` with 0 behind each row's end, even where it was NaN. x (B, C, T); live (B,)"""
    padding = torch.arange(x.shape[2], device=x.device) >= live[:, None, None]  # (B, 1, T)
    return x.masked_fill(padding, 0.0)


def snake(x: Tensor, alpha: Tensor, live: Tensor) -> Tensor:
    """x + sin^2(alpha x) / alpha, of Ziyin, Hartwig and Ueda (2020). x (B, C, T); alpha (C,); live (B,)"""
    x, alpha = mask_padding(x, live), alpha[:, None]
    return (x + (x * alpha).sin().square() / (alpha + SMALL)).to(x.dtype)  # snake(0) is 0, so padding stays 0


def add_snake(update: Tensor, residual: Tensor, alpha: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Snake of the sum, and the sum. (B, C, T) each; alpha (C,); live (B,)"""
    total = mask_padding(update + residual, live)
    return snake(total, alpha, live), total


def leaky_mean(updates: Sequence[Tensor], residuals: Sequence[Tensor], slope: float, live: Tensor) -> Tensor:
    """Leaky ReLU of the mean of three sums, update + residual. (B, C, T) each; live (B,)"""
    total = sum(update.float() + residual.float() for update, residual in zip(updates, residuals, strict=True))
    return mask_padding(F.leaky_relu(total / len(updates), slope), live).to(updates[0].dtype)


def sum_harmonics(start: Tensor, step: Tensor, offsets: Tensor, weight: Tensor, frame: int) -> Tensor:
    """The weighted sum (B, T * frame) float32 of H sines whose frequencies are constant within a frame.

    start (B, H, T): phase at the frame's start; step (B, H, T): phase of one sample; both int64, with 2^32 as a period.
    offsets (B, H) radians; weight (H,); frame: samples in a frame.
    """
    samples = torch.arange(1, frame + 1, device=start.device)  # a frame's first sample is one step behind its start
    total = torch.zeros(1, device=start.device)
    for begin, advance, offset, share in zip(start.unbind(1), step.unbind(1), offsets.unbind(1), weight, strict=True):
        turn = (begin[..., None] + advance[..., None] * samples) & WORD  # (B, T, frame)
        angle = turn.float() * (2 * math.pi * 2.0**-32) + offset[:, None, None]
        total = total + share * angle.sin()
    return total.flatten(1)
