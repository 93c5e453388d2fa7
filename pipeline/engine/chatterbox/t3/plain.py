"""The decoder's operations in plain PyTorch; `kernels` has the same ones for CUDA.

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
    attend_all = one_by_one(shared, own + 1) if own.device.type == "cpu" else together(cache, shared, own + 1)

    def attend(layer: int, qkv: Tensor) -> Tensor:
        prefix, (keys, values) = cache.prefix[layer], cache.own[layer]
        _, heads, _, width = prefix.shape
        q, k, v = qkv.view(len(rows), 3, heads, width).unbind(1)  # (R, heads, 64) each
        keys[rows, :, own] = rotate(k, cos, sin)
        values[rows, :, own] = v
        return attend_all(rotate(q, cos, sin) * width**-0.5, prefix, keys, values).flatten(1)

    return attend


def one_by_one(shared: Tensor, own: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """For a CPU: of each row only what is there is read.

    q (R, heads, 64); prefix (2, heads, S, 64); keys and values (R, heads, T, 64); (R, heads, 64)
    """
    lengths = list(zip(shared.tolist(), own.tolist(), strict=True))

    def attend(q: Tensor, prefix: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = []
        for row, (before, length) in enumerate(lengths):
            one = q[row, :, None]  # (heads, 1, 64)
            scores = torch.cat([one @ prefix[0, :, :before].mT, one @ keys[row, :, :length].mT], dim=2)
            share = scores.float().softmax(2).to(q.dtype)  # (heads, 1, before + length)
            attended.append(share[..., :before] @ prefix[1, :, :before] + share[..., before:] @ values[row, :, :length])
        return torch.stack(attended)[:, :, 0]

    return attend


def together(cache: Cache, shared: Tensor, own: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """For what is slow to begin with each row: all rows at once, over all that there is room for."""
    sizes = [cache.prefix.shape[3], cache.own.shape[4]]  # S, T
    live = [torch.arange(n, device=own.device) < ends[:, None] for n, ends in zip(sizes, (shared, own), strict=True)]
    hidden, stale = ~torch.cat(live, dim=1)[:, None], ~live[1][:, None, :, None]  # (R, 1, S + T), (R, 1, T, 1)

    def attend(q: Tensor, prefix: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        to_prefix = (q.transpose(0, 1) @ prefix[0].mT).transpose(0, 1)  # (R, heads, S)
        scores = torch.cat([to_prefix, (keys @ q[..., None])[..., 0]], dim=2).float()  # (R, heads, S + T)
        before, behind = scores.masked_fill(hidden, float("-inf")).softmax(2).to(q.dtype).split(sizes, dim=2)
        from_prefix = (before.transpose(0, 1) @ prefix[1]).transpose(0, 1)  # (R, heads, 64)
        # What an earlier utterance left behind may be NaN, of which a share of 0 is NaN too.
        return from_prefix + (behind[:, :, None] @ values.masked_fill(stale, 0))[:, :, 0]

    return attend
