"""The flow's network: the velocity of a mel at a time between noise and speech, for a pack of sequences.

Stock's U-Net without its masks: a pack has no padding between sequences. Knows nothing of tokens, steps or CFG.
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
    """`kernels` where they can run, which is never in FP32; else `plain`, which has the same functions."""
    if not compiles(device) or number_format == "fp32":
        return plain
    from pipeline.engine.chatterbox.s3gen import kernels  # imports Triton

    return kernels


def estimate(weights: Estimator, x: Tensor, shifts: Tensor, pack: Pack, number_format: str) -> Tensor:
    """Velocity (N, 80) of x (N, 320): noisy mel, mu, speaker, prompt. shifts (stages, 256): time embeddings"""
    ops = choose_flow_ops(x.device, number_format)
    shift = iter(shifts)
    x, skip = _run_stage(ops, weights, weights.down, x, next(shift), pack)
    for stage in weights.middle:
        x, _ = _run_stage(ops, weights, stage, x, next(shift), pack)
    x, _ = _run_stage(ops, weights, weights.up, torch.cat([x, skip], dim=1), next(shift), pack)
    x = ops.conv(x, pack, weights.final, EPS)
    return F.linear(x, weights.final_weight, weights.final_bias)


def _run_stage(
    ops: ModuleType, weights: Estimator, stage: EstimatorStage, x: Tensor, shift: Tensor, pack: Pack
) -> tuple[Tensor, Tensor]:
    """The stage's output, and the same before its last convolution, for the U-Net's skip. (N, 256) each"""
    residual = F.linear(x, stage.skip, stage.skip_bias)
    x = ops.conv(x, pack, stage.first, EPS, shift=shift)
    update = ops.conv(x, pack, stage.second, EPS)
    for block in stage.blocks:
        update, residual = _run_block(ops, block, update, residual, pack, weights.heads)
    x = update + residual
    return (ops.conv(x, pack, stage.last, EPS) if stage.last else x), x


def _run_block(
    ops: ModuleType, block: TransformerBlock, update: Tensor, residual: Tensor, pack: Pack, heads: int
) -> tuple[Tensor, Tensor]:
    """A transformer block. Input and output are two terms of a sum, which the next norm adds. (N, 256) each"""
    x, residual = ops.add_norm(update, residual, block.norm, EPS)
    attended = ops.attention(F.linear(x, block.qkv), pack, heads)
    x, residual = ops.add_norm(F.linear(attended, block.project, block.project_bias), residual, block.mlp_norm, EPS)
    hidden = ops.linear_gelu(x, block.up, block.up_bias)
    return F.linear(hidden, block.down, block.down_bias), residual
