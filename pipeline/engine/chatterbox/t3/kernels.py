"""The decoder's operations as Triton kernels, for CUDA; `plain` has the same functions in plain PyTorch.

A program computes one row, or one head of one row, from nothing but that row. The order of its sums depends on the
row's lengths only, so bits do not depend on the rest of the batch. Arithmetic is FP32; memory has the weights' dtype.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.device.hash import FACTORS, OTHER
from pipeline.device.random_kernels import mix
from pipeline.engine.chatterbox.t3 import sampler
from pipeline.engine.chatterbox.t3.cache import Cache

BLOCK = 64  # positions that a program reads at a time
FEW_ROWS = 16  # up to here a program for each row and head leaves a GPU partly idle, so rows are divided into parts
PART = 128  # positions; fixed, so that a row is always divided at the same places


@triton.jit
def _add_rms_norm(update, residual, weight, normed, total, eps, WIDTH: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    x = tl.load(update + at).to(tl.float32) + tl.load(residual + at).to(tl.float32)
    kind = total.dtype.element_ty
    x = x.to(kind)  # the residual stream has the weights' dtype; the norm is of the rounded sum
    tl.store(total + at, x)
    x = x.to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    scale = tl.load(weight + tl.arange(0, WIDTH)).to(tl.float32)
    tl.store(normed + at, (x.to(kind).to(tl.float32) * scale).to(kind))


def add_rms_norm(update: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm of the sum, and the sum. (N, 1024) each"""
    normed, total = torch.empty_like(update), torch.empty_like(update)
    rows, width = update.shape
    _add_rms_norm[(rows,)](update, residual, weight, normed, total, eps, WIDTH=width)
    return normed, total


@triton.jit
def _silu_mul(gate_up, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_up + row * 2 * WIDTH + column).to(tl.float32)
    up = tl.load(gate_up + row * 2 * WIDTH + WIDTH + column).to(tl.float32)
    tl.store(out + row * WIDTH + column, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty))


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up. (N, 2 * 4096) to (N, 4096)"""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    _silu_mul[(rows, width // 1024)](gate_up, out, WIDTH=width, BLOCK=1024)
    return out


@triton.jit
def _rotated(x, cos, sin, WIDTH: tl.constexpr):
    """RoPE of one head: each channel is paired with the one half a head away."""
    channel = tl.arange(0, WIDTH)
    sign = tl.where(channel < WIDTH // 2, -1.0, 1.0)
    partner = tl.load(x + (channel + WIDTH // 2) % WIDTH).to(tl.float32)
    return tl.load(x + channel).to(tl.float32) * cos + sign * partner * sin


@triton.jit
def _attend(q, keys, values, begin, end, highest, norm, mixed, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Online softmax over positions `begin` to `end`: the highest score, the weights' sum, the weighted values' sum."""
    channel = tl.arange(0, WIDTH)
    for start in range(begin, end, BLOCK):
        position = start + tl.arange(0, BLOCK)
        live = position < end
        at = position[:, None] * WIDTH + channel[None, :]
        k = tl.load(keys + at, mask=live[:, None], other=0.0).to(tl.float32)  # (BLOCK, WIDTH)
        score = tl.where(live, tl.sum(k * q[None, :], 1), float("-inf"))  # (BLOCK,), base 2
        v = tl.load(values + at, mask=live[:, None], other=0.0).to(tl.float32)
        before, highest = highest, tl.maximum(highest, tl.max(score, 0))
        fade, weight = tl.exp2(before - highest), tl.exp2(score - highest)
        norm = norm * fade + tl.sum(weight, 0)
        mixed = mixed * fade + tl.sum(weight[:, None] * v, 0)
    return highest, norm, mixed


@triton.jit
def _decode_attention(
    qkv, cosines, sines, prefix_keys, prefix_values, own_keys, own_values, shared, own, out, parts,
    scale, prefix_size, capacity, HEADS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    """One head of one row; if PART > 0, only the part with the second program id as its number.

    Each part stores its softmax, not yet normalised, in `parts` (R, HEADS, number of parts, 2 + WIDTH) float32.
    """
    program, part = tl.program_id(0).to(tl.int64), tl.program_id(1)  # int64: a cache is larger than 2^31
    row, head = program // HEADS, program % HEADS
    channel = tl.arange(0, WIDTH)
    before, length = tl.load(shared + row).to(tl.int32), tl.load(own + row).to(tl.int32)
    cos = tl.load(cosines + (before + length) * WIDTH + channel)
    sin = tl.load(sines + (before + length) * WIDTH + channel)
    here = qkv + (row * 3 * HEADS + head) * WIDTH
    q = _rotated(here, cos, sin, WIDTH).to(qkv.dtype.element_ty).to(tl.float32) * scale
    prefix_keys += head * prefix_size * WIDTH
    prefix_values += head * prefix_size * WIDTH
    own_keys += program * capacity * WIDTH
    own_values += program * capacity * WIDTH

    highest, norm = tl.full([], float("-inf"), tl.float32), tl.full([], 0.0, tl.float32)
    mixed = tl.zeros([WIDTH], tl.float32)
    if part == 0:  # also caches the new position and begins with it; no other program reads it
        k = _rotated(here + HEADS * WIDTH, cos, sin, WIDTH).to(own_keys.dtype.element_ty)
        v = tl.load(here + 2 * HEADS * WIDTH + channel)
        tl.store(own_keys + length * WIDTH + channel, k)
        tl.store(own_values + length * WIDTH + channel, v)
        highest, norm = tl.sum(k.to(tl.float32) * q, 0), norm + 1.0
        mixed = v.to(tl.float32)

    begin, end = 0, before + length
    if PART > 0:
        begin = part * PART
        end = tl.minimum(begin + PART, end)
    highest, norm, mixed = _attend(
        q, prefix_keys, prefix_values, begin, tl.minimum(end, before), highest, norm, mixed, WIDTH, BLOCK
    )
    highest, norm, mixed = _attend(
        q, own_keys, own_values, tl.maximum(begin - before, 0), end - before, highest, norm, mixed, WIDTH, BLOCK
    )
    if PART > 0:
        left = parts + (program * tl.num_programs(1) + part) * (2 + WIDTH)
        tl.store(left, highest)
        tl.store(left + 1, norm)
        tl.store(left + 2 + channel, mixed)
    else:
        tl.store(out + program * WIDTH + channel, (mixed / norm).to(out.dtype.element_ty))


@triton.jit
def _join_parts(parts, out, count, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    program, part, channel = tl.program_id(0).to(tl.int64), tl.arange(0, COUNT), tl.arange(0, WIDTH)
    left = parts + (program * count + part) * (2 + WIDTH)
    there = part < count
    highest = tl.load(left, mask=there, other=float("-inf"))  # (COUNT,)
    norm = tl.load(left + 1, mask=there, other=0.0)
    mixed = tl.load(left[:, None] + 2 + channel[None, :], mask=there[:, None], other=0.0)  # (COUNT, WIDTH)
    weight = tl.exp2(highest - tl.max(highest, 0))
    joined = tl.sum(weight[:, None] * mixed, 0) / tl.sum(weight * norm, 0)
    tl.store(out + program * WIDTH + channel, joined.to(out.dtype.element_ty))


def decode_attention(rope: Tensor, cache: Cache, shared: Tensor, own: Tensor) -> Callable[[int, Tensor], Tensor]:
    """Attention of one new token in each of R rows: a function of layer number and QKV (R, 3 * 1024); (R, 1024).

    Row r reads `shared[r]` positions of the prefix, `own[r]` positions of its own, and the new one. The new keys and
    values are cached behind the row's own.
    """
    _, _, rows, heads, capacity, width = cache.own.shape
    prefix_size = cache.prefix.shape[3]
    split = rows <= FEW_ROWS
    count = triton.cdiv(prefix_size + capacity, PART) if split else 1
    parts = torch.empty(rows, heads, count if split else 0, 2 + width, device=own.device)
    scale = width**-0.5 * 1.4426950408889634  # exp(x) is 2 ** (x log2(e)), which GPUs compute faster

    def attend(layer: int, qkv: Tensor) -> Tensor:
        out = qkv.new_empty(rows, heads * width)
        _decode_attention[(rows * heads, count)](
            qkv, *rope, *cache.prefix[layer], *cache.own[layer], shared, own, out, parts,
            scale, prefix_size, capacity, HEADS=heads, WIDTH=width, BLOCK=BLOCK, PART=PART if split else 0, num_warps=2,
        )  # fmt: skip
        if split:
            _join_parts[(rows * heads,)](parts, out, count, WIDTH=width, COUNT=triton.next_power_of_2(count))
        return out

    return attend


@triton.jit
def _sample(
    logits, seen, penalties, temperatures, min_ps, seeds, steps, drawn, finite,
    COUNT: tl.constexpr, SIZE: tl.constexpr, FACTOR_1: tl.constexpr, FACTOR_2: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    row, token = tl.program_id(0), tl.arange(0, SIZE)  # as many lanes as the next power of two
    there = token < COUNT
    raw = tl.load(logits + row * COUNT + token, mask=there, other=0.0)
    penalty = tl.load(penalties + row)
    penalised = tl.where(raw < 0, raw * penalty, raw / penalty)
    used = tl.load(seen + row * COUNT + token, mask=there, other=0) != 0
    scaled = tl.where(there, tl.where(used, penalised, raw) / tl.load(temperatures + row), float("-inf"))
    share = tl.exp(scaled - tl.max(scaled, 0))
    share = tl.where(share < tl.load(min_ps + row), 0.0, share)

    seed, step = tl.load(seeds + row), tl.load(steps + row).to(tl.uint32)
    low = mix(mix(seed.to(tl.uint32), FACTOR_1, FACTOR_2) ^ step, FACTOR_1, FACTOR_2)
    high = mix(mix((seed >> 32).to(tl.uint32) ^ OTHER, FACTOR_1, FACTOR_2) ^ step, FACTOR_1, FACTOR_2)
    bits = mix(mix(token.to(tl.uint32) ^ low, FACTOR_1, FACTOR_2) ^ high, FACTOR_1, FACTOR_2)
    uniform = tl.minimum((bits.to(tl.float32) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    rest = 1 - uniform  # rounded; -log1p(-uniform) is -log(rest) times a correction of that rounding
    exponential = tl.where(rest == 1, uniform, -tl.log(rest) * (uniform / (1 - rest)))

    best = tl.argmax(tl.where(there, share / exponential, -1.0), 0)
    tl.store(drawn + row, tl.minimum(best, COUNT - 1))  # with NaN, argmax may be any lane
    odd = there & ((raw != raw) | (tl.abs(raw) == float("inf")))
    tl.store(finite + row, tl.sum(odd.to(tl.int32), 0) == 0)


def sample(
    logits: Tensor,
    seen: Tensor,
    penalty: Tensor,
    temperature: Tensor,
    min_p: Tensor,
    top_p: Tensor | None,
    seeds: Tensor,
    steps: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `sampler.sample`, which is called where top-p needs a sort."""
    if top_p is not None:
        return sampler.sample(logits, seen, penalty, temperature, min_p, top_p, seeds, steps)
    rows, count = logits.shape
    drawn, finite = torch.empty_like(steps), torch.empty_like(steps, dtype=torch.bool)
    _sample[(rows,)](
        logits, seen, penalty, temperature, min_p, seeds, steps, drawn, finite,
        COUNT=count, SIZE=triton.next_power_of_2(count),
        FACTOR_1=FACTORS[0], FACTOR_2=FACTORS[1], OTHER=OTHER, num_warps=16,
    )  # fmt: skip
    return drawn, finite
