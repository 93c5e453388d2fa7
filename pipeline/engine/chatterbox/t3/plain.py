"""The decoder's operations in plain PyTorch, for CPU and MPS; `kernels` has the same functions for CUDA.

Each row is computed from nothing but that row, so on a CPU its bits do not depend on the rest of the batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.engine.chatterbox.t3.cache import Cache
from pipeline.engine.chatterbox.t3.sampler import sample

__all__ = ["add_rms_norm", "decode_attention", "rotate", "sample", "silu_mul"]


def add_rms_norm(update: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm of the sum, and the sum. (N, 1024) each"""
    residual = residual + update
    x = residual.float()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return weight * x.to(weight.dtype), residual


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up. (N, 2 * 4096) to (N, 4096)"""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE as in Llama: channel i is paired with channel i + 32. (..., 64)"""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-right, left], dim=-1) * sin).to(x.dtype)


def decode_attention(rope: Tensor, cache: Cache, shared: Tensor, own: Tensor) -> Callable[[int, Tensor], Tensor]:
    """Attention of one new token in each of R rows: a function of layer number and QKV (R, 3 * 1024); (R, 1024).

    Row r reads `shared[r]` positions of the prefix, `own[r]` positions of its own, and the new one. The new keys and
    values are cached behind the row's own.
    """
    rows = torch.arange(len(own), device=own.device)
    cos, sin = rope[:, shared + own, None]  # (R, 1, 64) each
    on_cpu = own.device.type == "cpu"
    attend_all = make_row_attention(shared, own + 1) if on_cpu else make_batch_attention(cache, shared, own + 1)

    def attend(layer: int, qkv: Tensor) -> Tensor:
        prefix, (keys, values) = cache.prefix[layer], cache.own[layer]
        _, heads, _, width = prefix.shape
        q, k, v = qkv.view(len(rows), 3, heads, width).unbind(1)  # (R, heads, 64) each
        keys[rows, :, own] = rotate(k, cos, sin)
        values[rows, :, own] = v
        return attend_all(rotate(q, cos, sin) * width**-0.5, prefix, keys, values).flatten(1)

    return attend


def make_row_attention(shared: Tensor, own: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """For a CPU: row after row, reading nothing but each row's positions.

    shared, own (R,): how many positions. The function is of q (R, heads, 64), prefix (2, heads, S, 64), and keys and
    values (R, heads, T, 64); it returns (R, heads, 64).
    """
    lengths = list(zip(shared.tolist(), own.tolist(), strict=True))

    def attend(q: Tensor, prefix: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = []
        for row, (before, length) in enumerate(lengths):
            one = q[row, :, None]  # (heads, 1, 64)
            scores = torch.cat([one @ prefix[0, :, :before].mT, one @ keys[row, :, :length].mT], dim=2)
            probs = scores.float().softmax(2).to(q.dtype)  # (heads, 1, before + length)
            attended.append(probs[..., :before] @ prefix[1, :, :before] + probs[..., before:] @ values[row, :, :length])
        return torch.stack(attended)[:, :, 0]

    return attend


def make_batch_attention(
    cache: Cache, shared: Tensor, own: Tensor
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """For a GPU, where each operation takes long to start: all rows at once, masked, over the cache's whole capacity.

    Arguments and the returned function are those of `make_row_attention`.
    """
    sizes = [cache.prefix.shape[3], cache.own.shape[4]]  # S, T
    valid = [torch.arange(n, device=own.device) < ends[:, None] for n, ends in zip(sizes, (shared, own), strict=True)]
    masked, stale = ~torch.cat(valid, dim=1)[:, None], ~valid[1][:, None, :, None]  # (R, 1, S + T), (R, 1, T, 1)

    def attend(q: Tensor, prefix: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        prefix_scores = (q.transpose(0, 1) @ prefix[0].mT).transpose(0, 1)  # (R, heads, S)
        scores = torch.cat([prefix_scores, (keys @ q[..., None])[..., 0]], dim=2).float()  # (R, heads, S + T)
        prefix_probs, own_probs = scores.masked_fill(masked, float("-inf")).softmax(2).to(q.dtype).split(sizes, dim=2)
        from_prefix = (prefix_probs.transpose(0, 1) @ prefix[1]).transpose(0, 1)  # (R, heads, 64)
        # An earlier utterance may have left NaN behind the row's end, and 0 * NaN is NaN.
        return from_prefix + (own_probs[:, :, None] @ values.masked_fill(stale, 0))[:, :, 0]

    return attend
