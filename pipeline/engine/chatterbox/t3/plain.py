"""The decoder's operations in plain PyTorch, for CPU and MPS; `kernels` has the same ones for CUDA.

Each row of a batch is computed in a way that depends on nothing but itself, down to the bits.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.chatterbox.t3.cache import Cache
from pipeline.engine.chatterbox.t3.sampler import sample

__all__ = ["add_rms_norm", "decode_attention", "rotate", "sample", "silu_mul"]


def add_rms_norm(update: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum, normalised, and the sum. (N, 1024) each"""
    residual = residual + update
    x = residual.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight * x.to(weight.dtype), residual


def silu_mul(gate_up: Tensor) -> Tensor:
    """(N, 2 * 4096) to (N, 4096)"""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding as Llama has it: channel i is paired with channel i + 32. (..., 64)"""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-right, left], dim=-1) * sin).to(x.dtype)


def decode_attention(rope: Tensor, cache: Cache, shared: Tensor, own: Tensor) -> Callable[[int, Tensor], Tensor]:
    """One token's attention for R rows, as a function of layer and (R, 3 * 1024) queries, keys and values.

    Row r reads `shared[r]` positions of the prefix, then `own[r]` of its own and the new one, which is put behind them.
    """
    rows = torch.arange(len(own), device=own.device)
    cos, sin = rope[:, shared + own, None]  # (R, 1, 64) each
    lengths = list(zip(shared.tolist(), (own + 1).tolist(), strict=True))

    def attend(layer: int, qkv: Tensor) -> Tensor:
        prefix, (keys, values) = cache.prefix[layer], cache.own[layer]
        _, heads, _, width = prefix.shape
        q, k, v = qkv.view(len(rows), 3, heads, width).unbind(1)  # (R, heads, 64) each
        keys[rows, :, own] = rotate(k, cos, sin)
        values[rows, :, own] = v
        q = rotate(q, cos, sin)[:, :, None] * width**-0.5  # (R, heads, 1, 64)
        attended = [
            _attend(q[row], prefix[:, :, :before], keys[row, :, :length], values[row, :, :length])
            for row, (before, length) in enumerate(lengths)
        ]
        return torch.stack(attended).view(len(rows), -1)

    return attend


def _attend(q: Tensor, prefix: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One row: q (heads, 1, 64); prefix (2, heads, S, 64); keys and values (heads, T, 64). (heads, 1, 64)"""
    before = prefix.shape[2]
    scores = torch.cat([q @ prefix[0].mT, q @ keys.mT], dim=2)  # (heads, 1, S + T)
    share = scores.float().softmax(2).to(q.dtype)
    return share[..., :before] @ prefix[1] + share[..., before:] @ values
