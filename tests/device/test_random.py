"""Noise by counter: uniform and normal to every test, and a row's own whatever is drawn beside it."""

import pytest
import torch
from scipy.stats import chi2, kstest

from pipeline.device import random
from pipeline.device.random import normal, uniform
from pipeline.engine.chatterbox.s3gen.streams import FLOW, PHASES, SOURCE

MANY = 100_000
LARGE = 2**63 - 1  # the largest seed
PINNED_UNIFORM = [[15102910, 14119414, 3627171], [9372741, 15022025, 1010242]]  # of 2^24
PINNED_NORMAL = [[1.084007, -0.689762, -0.408612], [-0.144117, -0.144538, 1.101615]]


def seeds(*values):
    return torch.tensor(values)


def correlation(x, y):
    return torch.corrcoef(torch.stack([x, y]))[0, 1].abs()


@pytest.mark.parametrize("seed", [0, 1, 2**32, LARGE])
@pytest.mark.parametrize("stream", [FLOW, PHASES, SOURCE])
def test_100_000_draws_are_uniform_and_normal(seed, stream):
    flat, bell = uniform(seeds(seed), stream, MANY)[0], normal(seeds(seed), stream, MANY)[0]
    assert kstest(flat.numpy(), "uniform").pvalue > 1e-3 and kstest(bell.numpy(), "norm").pvalue > 1e-3
    assert flat.min() >= 0 and flat.max() < 1
    counts = torch.special.ndtr(bell.double()).mul(1000).long().bincount(minlength=1000)  # a thousand equal shares
    assert chi2.sf(((counts - MANY / 1000) ** 2 / (MANY / 1000)).sum(), df=999) > 1e-3


def test_the_first_draws_of_many_seeds_are_uniform_and_normal():
    """What utterances with neighbouring seeds, and with seeds that share a half, begin with."""
    for many in (torch.arange(MANY), torch.arange(MANY) << 32):
        flat, bell = uniform(many, PHASES, 1)[:, 0], normal(many, PHASES, 1)[:, 0]
        assert kstest(flat.numpy(), "uniform").pvalue > 1e-3 and kstest(bell.numpy(), "norm").pvalue > 1e-3
        assert correlation(bell[1:], bell[:-1]) < 5 * MANY**-0.5


def test_neighbours_seeds_and_streams_are_not_correlated():
    one, next_seed, other_half = normal(seeds(5, 6, 5 + 2**32), SOURCE, MANY)
    other_stream = normal(seeds(5), FLOW, MANY)[0]
    pairs = [(one[1:], one[:-1]), (one[2:], one[:-2]), (one, next_seed), (one, other_half), (one, other_stream)]
    for x, y in pairs:
        assert correlation(x, y) < 5 * MANY**-0.5
        assert correlation(x.square(), y.square()) < 5 * MANY**-0.5  # two of a pair share their radius


def test_a_rows_noise_depends_on_its_seed_alone_and_begins_alike_at_any_length():
    together = normal(seeds(3, LARGE, 4), FLOW, 1001)
    assert torch.equal(normal(seeds(LARGE), FLOW, 1001)[0], together[1])
    for count in (1, 2, 77, 1000):
        assert torch.equal(normal(seeds(3, LARGE, 4), FLOW, count), together[:, :count])
    assert torch.equal(uniform(seeds(9, 3), PHASES, 8)[1], uniform(seeds(3), PHASES, 11)[0, :8])


def test_noise_is_the_same_on_every_machine():
    assert (uniform(seeds(0, LARGE), PHASES, 3) * 2**24).long().tolist() == PINNED_UNIFORM
    expected = torch.tensor(PINNED_NORMAL)
    torch.testing.assert_close(normal(seeds(0, LARGE), SOURCE, 3), expected, atol=1e-5, rtol=1e-5)


def test_no_bits_give_infinite_noise(monkeypatch):
    extremes = torch.cartesian_prod(*[torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1])] * 2)
    monkeypatch.setattr(random, "_bits", lambda seeds, stream, count: extremes.view(1, -1))
    bell, flat = normal(seeds(0), SOURCE, extremes.numel()), uniform(seeds(0), SOURCE, extremes.numel())
    assert bell.isfinite().all() and 6 < bell.abs().max() < 6.8
    assert flat.min() == 0 and flat.max() == 1 - 2**-24


COMPARE = """
import sys

import torch

from pipeline.engine.chatterbox.s3gen.streams import FLOW, SOURCE
from pipeline.device.random import plain_normal
from pipeline.device.random_kernels import normal

seeds = torch.tensor([0, 1, 2**32, 2**63 - 1, 1234567890123], device=sys.argv[1])
for stream in (FLOW, SOURCE):
    for count in (1, 2, 1023, 1024, 1025, 5000):
        torch.testing.assert_close(normal(seeds, stream, count), plain_normal(seeds, stream, count), atol=2e-6, rtol=0)
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_kernel_draws_what_plain_pytorch_does(device, compare_kernels):
    """But for the rounding of log, sin and cos."""
    compare_kernels(COMPARE, device)
