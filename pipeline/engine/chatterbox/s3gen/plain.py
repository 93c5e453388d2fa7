"""The estimator's operations in plain PyTorch, on any device and in any number format; `kernels` has them for CUDA."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.chatterbox.s3gen.pack import Pack
from pipeline.engine.chatterbox.s3gen.weights import Conv, Norm


def add_norm(update: Tensor, residual: Tensor, norm: Norm, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of the sum, and the sum. (N, 256) each"""
    total = update + residual
    return F.layer_norm(total, total.shape[-1:], *norm, eps), total


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, 256) to (N, 1024)"""
    return F.gelu(F.linear(x, weight, bias))


def attention(qkv: Tensor, pack: Pack, heads: int) -> Tensor:
    """Each sequence's frames look at all of its own. qkv (N, 3 * heads * 64); (N, heads * 64)"""
    out = qkv.new_zeros(len(qkv), qkv.shape[1] // 3)
    for begin, end in pack.spans:
        q, k, v = qkv[begin:end].view(end - begin, 3, heads, -1).permute(1, 2, 0, 3)[:, None]  # (1, heads, T, 64) each
        out[begin:end] = F.scaled_dot_product_attention(q, k, v, scale=math.log(2))[0].transpose(0, 1).flatten(1)
    return out


def conv(x: Tensor, pack: Pack, layer: Conv, eps: float, shift: Tensor | None = None) -> Tensor:
    """Causal convolution over three frames; with a norm, LayerNorm and Mish; plus `shift` (256,). (N, 256)"""
    back = [torch.where(pack.position[:, None] >= n, x.roll(n, 0), 0) for n in (2, 1)]
    made = F.linear(torch.cat([*back, x], dim=1), layer.weight, layer.bias)
    if layer.norm is not None:
        made = F.mish(F.layer_norm(made, made.shape[-1:], *layer.norm, eps))
    return made if shift is None else made + shift
