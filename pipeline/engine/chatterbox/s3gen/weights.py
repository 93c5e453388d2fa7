"""The flow estimator's weights as it reads them: matrices fused, in one dtype. Knows no arithmetic."""

import math
from dataclasses import dataclass

import torch
from chatterbox.models.s3gen.decoder import ConditionalDecoder
from torch import Tensor, nn

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
def fuse(stock: ConditionalDecoder, device: torch.device, dtype: torch.dtype) -> Estimator:
    """Fuse stock's module, which is in FP32."""

    def put(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype).contiguous()

    def norm(module: nn.LayerNorm) -> Norm:
        return put(module.weight), put(module.bias)

    def conv(module: nn.Conv1d, after: nn.LayerNorm | None = None) -> Conv:
        weight = put(module.weight.transpose(1, 2).flatten(1))  # (256, inputs, 3) to (256, 3 * inputs)
        return Conv(weight, put(module.bias), norm(after) if after else None)

    def block(module: nn.Module) -> TransformerBlock:
        attention, (up, _, down) = module.attn1, module.ff.net
        base_2 = attention.scale * math.log2(math.e)
        return TransformerBlock(
            norm=norm(module.norm1),
            qkv=put(torch.cat([attention.to_q.weight * base_2, attention.to_k.weight, attention.to_v.weight])),
            project=put(attention.to_out[0].weight),
            project_bias=put(attention.to_out[0].bias),
            mlp_norm=norm(module.norm3),
            up=put(up.proj.weight),
            up_bias=put(up.proj.bias),
            down=put(down.weight),
            down_bias=put(down.bias),
        )

    def stage(resnet: nn.Module, blocks: nn.ModuleList, last: nn.Module | None = None) -> EstimatorStage:
        first, second = resnet.block1.block, resnet.block2.block
        return EstimatorStage(
            first=conv(first[0], first[2]),
            second=conv(second[0], second[2]),
            skip=put(resnet.res_conv.weight[..., 0]),
            skip_bias=put(resnet.res_conv.bias),
            blocks=tuple(map(block, blocks)),
            last=conv(last) if last else None,
        )

    final = stock.final_block.block
    return Estimator(
        down=stage(*stock.down_blocks[0]),
        middle=tuple(stage(*modules) for modules in stock.mid_blocks),
        up=stage(*stock.up_blocks[0]),
        final=conv(final[0], final[2]),
        final_weight=put(stock.final_proj.weight[..., 0]),
        final_bias=put(stock.final_proj.bias),
        heads=stock.mid_blocks[0][1][0].attn1.heads,
    )
