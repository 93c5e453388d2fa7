"""The estimator's operations as Triton kernels, for CUDA in BF16, FP16 and TF32; `plain` has the same functions.

A program computes a few frames from nothing but their own sequence. The order of its sums depends on the sequence's
length only, so bits do not depend on the rest of the pack. Sums are FP32, memory has the weights' dtype, and FP32 is
multiplied as TF32. Offsets have 32 bits: up to 1.3 million frames.
"""

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.engine.chatterbox.s3gen.pack import BLOCK, Pack
from pipeline.engine.chatterbox.s3gen.weights import Conv, Norm

ROWS = 128  # frames of a program
WIDE_BYTES = 160_000  # shared memory for three stages of wide tiles; consumer cards have 101,376


@cache
def _tile_bytes(device: torch.device) -> int:
    """Bytes of a row that a program reads at a time. Shared memory holds three such tiles, for pipelining."""
    if device.type != "cuda":  # Triton's interpreter
        return 128
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index or 0)
    return 128 if properties["max_shared_mem"] >= WIDE_BYTES else 64


@triton.jit
def _normalise(x, weight, bias, eps, WIDTH: tl.constexpr):
    """LayerNorm of the rows of x (ROWS, WIDTH) float32."""
    channel = tl.arange(0, WIDTH)
    x = x - (tl.sum(x, 1) / WIDTH)[:, None]
    x = x * tl.rsqrt(tl.sum(x * x, 1) / WIDTH + eps)[:, None]
    return x * tl.load(weight + channel).to(tl.float32)[None, :] + tl.load(bias + channel).to(tl.float32)[None, :]


@triton.jit
def _add_norm(update, residual, weight, bias, normed, total, rows, eps, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at, there = row[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :], (row < rows)[:, None]
    x = tl.load(update + at, mask=there, other=0.0).to(tl.float32)
    x += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
    tl.store(total + at, x.to(total.dtype.element_ty), mask=there)
    tl.store(normed + at, _normalise(x, weight, bias, eps, WIDTH).to(total.dtype.element_ty), mask=there)


def add_norm(update: Tensor, residual: Tensor, norm: Norm, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of the sum, and the sum. (N, 256) each"""
    normed, total = torch.empty_like(update), torch.empty_like(update)
    rows, width = update.shape
    _add_norm[(triton.cdiv(rows, 16),)](
        update, residual, *norm, normed, total, rows, eps, WIDTH=width, ROWS=16, num_warps=4
    )
    return normed, total


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, 256) to (N, 1024). cuBLAS has GELU's tanh form, which differs by half a BF16's last digit at most."""
    return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


@triton.jit
def _attend(q, k, v, live, highest, norm, mixed, MASKED: tl.constexpr):
    """Online softmax, in base 2, of the queries q (QUERIES, DIM): add a block of keys and values (KEYS, DIM)."""
    score = tl.dot(q, tl.trans(k))  # (QUERIES, KEYS)
    if MASKED:
        score = tl.where(live[None, :], score, float("-inf"))
    above = tl.maximum(highest, tl.max(score, 1))
    share = tl.exp2(score - above[:, None])
    fade = tl.exp2(highest - above)
    mixed = tl.dot(share.to(v.dtype), v, mixed * fade[:, None])
    return above, norm * fade + tl.sum(share, 1), mixed


@triton.jit
def _attention(qkv, blocks, out, HEADS: tl.constexpr, DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    head, entry = tl.program_id(0), blocks + tl.program_id(1) * 3
    first, begin, end = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    if end > begin:
        stride: tl.constexpr = 3 * HEADS * DIM
        row, key, channel = first + tl.arange(0, QUERIES), tl.arange(0, KEYS), tl.arange(0, DIM)
        there, length = (row < end)[:, None], end - begin
        # Used as loaded: arithmetic would move q from shared memory to registers, and cost a fifth of the speed.
        q = tl.load(qkv + row[:, None] * stride + head * DIM + channel[None, :], mask=there, other=0.0)
        keys = qkv + (HEADS + head) * DIM + (begin + key)[:, None] * stride + channel[None, :]
        values = keys + HEADS * DIM
        highest, norm = tl.full([QUERIES], float("-inf"), tl.float32), tl.zeros([QUERIES], tl.float32)
        mixed = tl.zeros([QUERIES, DIM], tl.float32)
        whole = length // KEYS * KEYS
        for _ in range(0, whole, KEYS):
            highest, norm, mixed = _attend(q, tl.load(keys), tl.load(values), key, highest, norm, mixed, MASKED=False)
            keys += KEYS * stride
            values += KEYS * stride
        if whole < length:
            live = whole + key < length
            k = tl.load(keys, mask=live[:, None], other=0.0)
            v = tl.load(values, mask=live[:, None], other=0.0)
            highest, norm, mixed = _attend(q, k, v, live, highest, norm, mixed, MASKED=True)
        mixed = (mixed / norm[:, None]).to(out.dtype.element_ty)
        tl.store(out + row[:, None] * (HEADS * DIM) + head * DIM + channel[None, :], mixed, mask=there)


def attention(qkv: Tensor, pack: Pack, heads: int) -> Tensor:
    """Attention within each sequence. qkv (N, 3 * heads * 64); (N, heads * 64), arbitrary in unused frames"""
    dim = qkv.shape[1] // (3 * heads)
    out = qkv.new_empty(len(qkv), heads * dim)
    _attention[(heads, len(pack.blocks))](
        qkv, pack.blocks, out, HEADS=heads, DIM=dim, QUERIES=BLOCK, KEYS=128 // qkv.itemsize, num_warps=4, num_stages=3
    )
    return out


@triton.jit
def _mish(x):
    e = tl.exp(-tl.abs(x))  # tanh(log(1 + exp(x))) without overflow
    grown = tl.where(x > 0, 1 + 2 * e, e * (e + 2))
    return x * grown / tl.where(x > 0, grown + 2 * e * e, grown + 2)


@triton.jit
def _conv(
    x, position, weight, bias, norm_weight, norm_bias, shift, out, rows, eps,
    INPUTS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr,
    ACTIVATED: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    there = row < rows
    place = tl.load(position + row, mask=there, other=0)
    made = tl.zeros([ROWS, WIDTH], tl.float32)
    for step in range(0, 3 * INPUTS, STEP):
        back = 2 - step // INPUTS  # frames
        part = step % INPUTS + tl.arange(0, STEP)
        live = there & (place >= back)
        a = tl.load(x + (row - back)[:, None] * INPUTS + part[None, :], mask=live[:, None], other=0.0)
        w = tl.load(weight + channel[None, :] * (3 * INPUTS) + step + tl.arange(0, STEP)[:, None])  # (STEP, WIDTH)
        made = tl.dot(a, w, made)
    made += tl.load(bias + channel).to(tl.float32)[None, :]
    if ACTIVATED:
        made = _mish(_normalise(made, norm_weight, norm_bias, eps, WIDTH))
    if SHIFTED:
        made += tl.load(shift + channel).to(tl.float32)[None, :]
    at = row[:, None] * WIDTH + channel[None, :]
    tl.store(out + at, made.to(out.dtype.element_ty), mask=there[:, None])


def conv(x: Tensor, pack: Pack, layer: Conv, eps: float, shift: Tensor | None = None) -> Tensor:
    """Causal convolution over three frames, LayerNorm and Mish if there is a norm, plus `shift` (256,). (N, 256)"""
    rows, inputs = x.shape
    width = len(layer.bias)
    out = x.new_empty(rows, width)
    _conv[(triton.cdiv(rows, ROWS),)](
        x, pack.position, layer.weight, layer.bias, *(layer.norm or (layer.bias, layer.bias)),
        layer.bias if shift is None else shift, out, rows, eps,
        INPUTS=inputs, WIDTH=width, ROWS=ROWS, STEP=_tile_bytes(x.device) // x.itemsize,
        ACTIVATED=layer.norm is not None, SHIFTED=shift is not None, num_warps=8, num_stages=3,
    )  # fmt: skip
    return out
