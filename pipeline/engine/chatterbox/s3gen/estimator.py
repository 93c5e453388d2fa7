"""The flow's network: how a mel has to move at a time of the way from noise to speech, for a pack of sequences.

Stock's U-Net without its masks: in a pack nothing is padding. Knows nothing of tokens, steps or guidance.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.graphs import compiles
from pipeline.engine.chatterbox.s3gen import plain
from pipeline.engine.chatterbox.s3gen.pack import Pack
from pipeline.engine.chatterbox.s3gen.weights import Estimator, EstimatorStage, TransformerBlock

EPS = 1e-5


def choose_flow_ops(device: torch.device, number_format: str) -> ModuleType:
    """`kernels`, where they can run, which is not in FP32; else `plain`, which has the same functions."""
    if not compiles(device) or number_format == "fp32":
        return plain
    from pipeline.engine.chatterbox.s3gen import kernels  # imports Triton

    return kernels


def estimate(weights: Estimator, x: Tensor, shifts: Tensor, pack: Pack, number_format: str) -> Tensor:
    """x (N, 320): mel, what the encoder says, speaker, prompt; shifts (stages, 256) of the time; (N, 80)"""
    ops = choose_flow_ops(x.device, number_format)
    shift = iter(shifts)
    x, skip = _stage(ops, weights, weights.down, x, next(shift), pack)
    for stage in weights.middle:
        x, _ = _stage(ops, weights, stage, x, next(shift), pack)
    x, _ = _stage(ops, weights, weights.up, torch.cat([x, skip], dim=1), next(shift), pack)
    x = ops.conv(x, pack, weights.final, EPS)
    return F.linear(x, weights.final_weight, weights.final_bias)


def _stage(
    ops: ModuleType, weights: Estimator, stage: EstimatorStage, x: Tensor, shift: Tensor, pack: Pack
) -> tuple[Tensor, Tensor]:
    """What comes out of it, and what it was before the last convolution. (N, 256) each"""
    residual = F.linear(x, stage.skip, stage.skip_bias)
    x = ops.conv(x, pack, stage.first, EPS, shift=shift)
    update = ops.conv(x, pack, stage.second, EPS)
    for block in stage.blocks:
        update, residual = _transform(ops, block, update, residual, pack, weights.heads)
    x = update + residual
    return (ops.conv(x, pack, stage.last, EPS) if stage.last else x), x


def _transform(
    ops: ModuleType, block: TransformerBlock, update: Tensor, residual: Tensor, pack: Pack, heads: int
) -> tuple[Tensor, Tensor]:
    """A transformer block from and to the two terms of a sum, which the next norm adds up. (N, 256) each"""
    x, residual = ops.add_norm(update, residual, block.norm, EPS)
    attended = ops.attention(F.linear(x, block.qkv), pack, heads)
    x, residual = ops.add_norm(F.linear(attended, block.project, block.project_bias), residual, block.mlp_norm, EPS)
    hidden = ops.linear_gelu(x, block.up, block.up_bias)
    return F.linear(hidden, block.down, block.down_bias), residual
