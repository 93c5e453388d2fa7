"""The vocoder's Triton kernels compute what plain PyTorch does: interpreted on the CPU, and on a GPU."""

import pytest

COMPARE = """
import sys

import torch

from pipeline.engine.chatterbox.s3gen import vocoder_kernels as kernels
from pipeline.engine.chatterbox.s3gen import vocoder_plain as plain

device = sys.argv[1]


def randn(*shape):
    return torch.randn(shape, device=device)


def same(ours, expected):
    torch.testing.assert_close(ours, expected, atol=5e-6, rtol=1e-5)


# A full row, one that ends inside a block, one on a block's edge, and an empty one; NaN behind their ends.
torch.manual_seed(0)
live = torch.tensor([2049, 1500, 1024, 0], device=device)


def rows():
    x = randn(4, 5, 2049)
    for row, end in zip(x, live.tolist()):
        row[:, end:] = torch.nan
    return x


alpha = torch.tensor([0.0, 1e-3, 0.5, 1.0, 20.0], device=device)
same(kernels.snake(x := rows(), alpha, live), plain.snake(x, alpha, live))
inputs = rows(), rows(), alpha, live
for ours, expected in zip(kernels.add_snake(*inputs), plain.add_snake(*inputs)):
    same(ours, expected)
inputs = [rows() for _ in range(3)], [rows() for _ in range(3)], 0.1, live
same(kernels.leaky_mean(*inputs), plain.leaky_mean(*inputs))

turns = torch.randint(2**32, (2, 3, 9, 7), device=device)
turns[:, 0, 0, :2] = torch.tensor([0, 2**32 - 1], device=device)
inputs = *turns, 3 * randn(3, 9), randn(9)
same(kernels.sum_harmonics(*inputs, 480), plain.sum_harmonics(*inputs, 480))
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_compute_what_plain_pytorch_does(device, compare_kernels):
    compare_kernels(COMPARE, device)
