"""The Triton kernels compute what plain PyTorch does: on the CPU by Triton's interpreter, and on a GPU."""

import pytest

COMPARE = """
import sys

import torch

from pipeline.engine.chatterbox.t3 import kernels, plain, sampler
from pipeline.engine.chatterbox.t3.cache import Cache

device, dtype = sys.argv[1], getattr(torch, sys.argv[2])
tolerance = dict(atol=2e-2, rtol=2e-2) if dtype is torch.bfloat16 else dict(atol=2e-5, rtol=2e-5)


def randn(*shape):
    return torch.randn(shape, device=device).to(dtype)


def same(ours, expected):
    torch.testing.assert_close(ours, expected, **tolerance)


torch.manual_seed(0)
inputs = randn(3, 1024), randn(3, 1024), randn(1024), 1e-5
for ours, expected in zip(kernels.add_rms_norm(*inputs), plain.add_rms_norm(*inputs)):
    same(ours, expected)
gate_up = randn(3, 8192)
same(kernels.silu_mul(gate_up), plain.silu_mul(gate_up))

# Some rows have no position of their own; lengths are on both sides of blocks and parts; stale NaN is behind.
heads, prefix_size, capacity = 2, 200, 150
angles = torch.randn(400, 32, device=device).repeat(1, 2)
rope = torch.stack([angles.cos(), angles.sin()])
for rows in (4, 18):
    shared = torch.tensor([34, 34, 130, 200] * 5, device=device)[:rows]
    own = torch.tensor([0, 63, 64, 149, 1, 100, 128, 5, 40] * 2, device=device)[:rows]
    prefix, fresh = randn(3, 2, heads, prefix_size, 64), randn(3, 2, rows, heads, capacity, 64)
    for row in range(rows):
        fresh[:, :, row, :, own[row] :] = torch.nan
    caches = [Cache(prefix, fresh.clone()) for _ in range(2)]
    qkv = randn(rows, 3 * heads * 64)
    ours, expected = (
        ops.decode_attention(rope, cache, shared, own)(1, qkv) for ops, cache in zip((kernels, plain), caches)
    )
    same(ours, expected)
    q, (keys, values) = randn(rows, heads, 64), caches[1].own[1]
    by_row, by_batch = plain.make_row_attention(shared, own + 1), plain.make_batch_attention(caches[1], shared, own + 1)
    same(by_batch(q, prefix[1], keys, values), by_row(q, prefix[1], keys, values))
    torch.testing.assert_close(caches[0].own, caches[1].own, **tolerance, equal_nan=True)

rows = 24
logits = 5 * torch.randn(rows, 8194, device=device)
columns = [torch.linspace(*ends, rows, device=device)[:, None] for ends in ((1, 2), (0.5, 2), (0, 1))]
seeds = torch.randint(2**63 - 1, (rows,), device=device)
inputs = logits, logits.sort()[1] % 3 == 0, *columns, None, seeds, torch.arange(rows, device=device)
(ours, finite), (expected, _) = kernels.sample(*inputs), sampler.sample(*inputs)
assert ours.tolist() == expected.tolist() and len(set(ours.tolist())) > 12 and finite.all()
for row, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
    logits[row, 5 * row] = odd
logits[3] = torch.nan
(ours, finite), (_, expected) = kernels.sample(*inputs), sampler.sample(*inputs)
assert finite.tolist() == expected.tolist() == [False] * 4 + [True] * 20
assert ((0 <= ours) & (ours < 8194)).all()
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_compute_what_plain_pytorch_does(device, dtype, compare_kernels):
    compare_kernels(COMPARE, device, dtype)
