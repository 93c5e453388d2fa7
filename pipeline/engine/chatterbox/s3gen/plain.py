"""The estimator's operations in plain PyTorch, for any device and dtype; `kernels` has the same functions for CUDA."""

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
    """GELU of a linear layer. (N, 256) to (N, 1024)"""
    return F.gelu(F.linear(x, weight, bias))


def attention(qkv: Tensor, pack: Pack, heads: int) -> Tensor:
    """Attention within each sequence. qkv (N, 3 * heads * 64); (N, heads * 64), 0 in unused frames"""
    out = qkv.new_zeros(len(qkv), qkv.shape[1] // 3)
    for begin, end in pack.spans:
        q, k, v = qkv[begin:end].view(end - begin, 3, heads, -1).permute(1, 2, 0, 3)[:, None]  # (1, heads, T, 64) each
        # The queries are scaled for a softmax in base 2; a scale of log(2) makes it base e.
        out[begin:end] = F.scaled_dot_product_attention(q, k, v, scale=math.log(2))[0].transpose(0, 1).flatten(1)
    return out


def conv(x: Tensor, pack: Pack, layer: Conv, eps: float, shift: Tensor | None = None) -> Tensor:
    """Causal convolution over three frames, LayerNorm and Mish if there is a norm, plus `shift` (256,). (N, 256)"""
    back = [torch.where(pack.position[:, None] >= n, x.roll(n, 0), 0) for n in (2, 1)]
    out = F.linear(torch.cat([*back, x], dim=1), layer.weight, layer.bias)
    if layer.norm is not None:
        out = F.mish(F.layer_norm(out, out.shape[-1:], *layer.norm, eps))
    return out if shift is None else out + shift
