"""The flow estimator's weights as it reads them: matrices fused, in one dtype. Knows no arithmetic."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.engine.chatterbox.saved import SavedTensors

HEADS, HEAD_DIM = 8, 64
Norm = tuple[Tensor, Tensor]  # LayerNorm's weight and bias, (256,) each


@dataclass(frozen=True)
class Conv:
    """A causal convolution over three frames."""

    weight: Tensor  # (256, 3 * inputs), the oldest frame first
    bias: Tensor  # (256,)
    norm: Norm | None  # if any, LayerNorm and Mish follow


@dataclass(frozen=True)
class TransformerBlock:
    """Attention and an MLP, each behind a LayerNorm."""

    norm: Norm
    qkv: Tensor  # (3 * 512, 256); queries are scaled for a softmax in base 2, which GPUs compute faster
    project: Tensor  # (256, 512)
    project_bias: Tensor
    mlp_norm: Norm
    up: Tensor  # (1024, 256)
    up_bias: Tensor
    down: Tensor  # (256, 1024)
    down_bias: Tensor


@dataclass(frozen=True)
class EstimatorStage:
    """A residual block of convolutions, transformer blocks, and a convolution unless it is in the middle."""

    first: Conv
    second: Conv
    skip: Tensor  # (256, inputs)
    skip_bias: Tensor
    blocks: tuple[TransformerBlock, ...]
    last: Conv | None


@dataclass(frozen=True)
class Estimator:
    down: EstimatorStage
    middle: tuple[EstimatorStage, ...]
    up: EstimatorStage
    final: Conv
    final_weight: Tensor  # (80, 256)
    final_bias: Tensor
    heads: int

    @property
    def dtype(self) -> torch.dtype:
        return self.final_weight.dtype


@torch.no_grad()
def fuse(saved: SavedTensors, device: torch.device, dtype: torch.dtype) -> Estimator:
    """Fuse the tensors of `flow.decoder.estimator`."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device).float().to(dtype).contiguous()

    def pair(of: SavedTensors, name: str) -> Norm:
        return put(of[f"{name}.weight"]), put(of[f"{name}.bias"])

    def conv(of: SavedTensors, name: str, norm: str = "") -> Conv:
        weight = put(of[f"{name}.weight"].transpose(1, 2).flatten(1))  # (256, inputs, 3) to (256, 3 * inputs)
        return Conv(weight, put(of[f"{name}.bias"]), pair(of, norm) if norm else None)

    def block(of: SavedTensors) -> TransformerBlock:
        base_2 = HEAD_DIM**-0.5 * math.log2(math.e)
        q, k, v = (of[f"attn1.to_{name}.weight"].to(device).float() for name in "qkv")
        project, project_bias = pair(of, "attn1.to_out.0")
        up, up_bias = pair(of, "ff.net.0.proj")
        down, down_bias = pair(of, "ff.net.2")
        return TransformerBlock(
            norm=pair(of, "norm1"),
            qkv=put(torch.cat([q * base_2, k, v])),
            project=project,
            project_bias=project_bias,
            mlp_norm=pair(of, "norm3"),
            up=up,
            up_bias=up_bias,
            down=down,
            down_bias=down_bias,
        )

    def stage(of: SavedTensors, has_last: bool = False) -> EstimatorStage:
        return EstimatorStage(
            first=conv(of, "0.block1.block.0", "0.block1.block.2"),
            second=conv(of, "0.block2.block.0", "0.block2.block.2"),
            skip=put(of["0.res_conv.weight"][..., 0]),
            skip_bias=put(of["0.res_conv.bias"]),
            blocks=tuple(map(block, of.blocks("1"))),
            last=conv(of, "2") if has_last else None,
        )

    return Estimator(
        down=stage(saved.under("down_blocks.0"), has_last=True),
        middle=tuple(map(stage, saved.blocks("mid_blocks"))),
        up=stage(saved.under("up_blocks.0"), has_last=True),
        final=conv(saved, "final_block.block.0", "final_block.block.2"),
        final_weight=put(saved["final_proj.weight"][..., 0]),
        final_bias=put(saved["final_proj.bias"]),
        heads=HEADS,
    )
