"""The sampler alone: stock's order and edges, and noise that depends on seed, step and token only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

from pipeline.device.hash import random_bits
from pipeline.device.random import exponential
from pipeline.engine.chatterbox.t3.sampler import draw, process, sample

PINNED = [
    [2931497930, 1553417399, 2101773922],
    [1609712091, 4027524141, 2053674906],
    [3181526618, 4047988266, 652082773],
    [501432913, 2885708399, 2661227004],
]


def column(*values):
    return torch.tensor(values)[:, None]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    penalty=st.floats(1, 10),
    temperature=st.floats(0.05, 5),
    min_p=st.floats(0, 1),
    top_p=st.floats(0.01, 1),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
)
def test_probabilities_are_those_of_stocks_processors(seed, penalty, temperature, min_p, top_p, scale):
    torch.manual_seed(seed)
    logits, ids = scale * torch.randn(1, 300), torch.randint(300, (1, 40))
    scores = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits) / temperature
    expected = TopPLogitsWarper(top_p)(ids, MinPLogitsWarper(min_p)(ids, scores)).softmax(-1)
    seen = torch.zeros(1, 300, dtype=torch.bool).scatter(1, ids, True)
    shares = process(logits, seen, column(penalty), column(temperature), column(min_p), column(top_p))
    probs = shares / shares.sum()
    # A token on the very edge of a cut may fall on either side of it.
    odd = (probs > 0) != (expected > 0)
    assert odd.sum() <= 1
    if not odd.any():
        torch.testing.assert_close(probs, expected, atol=1e-5, rtol=1e-4)


def test_top_p_1_is_no_top_p():
    torch.manual_seed(0)
    inputs = torch.randn(4, 500), torch.zeros(4, 500, dtype=torch.bool), *[torch.ones(4, 1)] * 2, torch.zeros(4, 1)
    assert torch.equal(process(*inputs, torch.ones(4, 1)), process(*inputs, None))


def test_min_p_1_is_greedy_and_draws_among_equals():
    logits = torch.zeros(300, 10)
    logits[:, [3, 7]] = 2.0
    ones, seeds = torch.ones(300, 1), torch.arange(300)
    tokens, _ = sample(logits, logits > 9, ones, ones, ones, ones, seeds, seeds)
    assert set(tokens.tolist()) == {3, 7} and 100 < (tokens == 3).sum() < 200


def test_50_000_draws_follow_the_distribution():
    torch.manual_seed(0)
    scores = 2 * torch.randn(1, 60)
    shares = process(scores, scores > 99, column(1.0), column(0.8), column(0.01), None)
    seeds, steps = torch.arange(500).repeat(100) * 2**40 + 17, torch.arange(100).repeat_interleave(500)
    counts = draw(shares.expand(50_000, -1), seeds, steps).bincount(minlength=60)
    expected = 50_000 * (shares / shares.sum())[0]
    kept = expected > 0
    assert (counts[~kept] == 0).all() and kept.sum() > 20
    chi_square = ((counts - expected)[kept].square() / expected[kept]).sum()
    degrees = kept.sum() - 1
    assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


def test_a_draw_depends_on_its_own_row_only():
    torch.manual_seed(0)
    shares, seeds, steps = torch.rand(20, 1000), torch.randint(2**63 - 1, (20,)), torch.randint(1000, (20,))
    tokens = draw(shares, seeds, steps)
    assert torch.equal(draw(shares[7:9], seeds[7:9], steps[7:9]), tokens[7:9])
    assert not torch.equal(draw(shares, seeds, steps + 1), tokens)
    assert not torch.equal(draw(shares, seeds ^ (1 << 62), steps), tokens)


def test_bits_are_the_same_on_every_machine():
    seeds = torch.tensor([0, 1, 2**32, 2**63 - 1])[:, None]
    bits = random_bits(seeds, torch.tensor([0, 1, 2, 1000])[:, None], torch.tensor([0, 1, 8193]))
    assert bits.tolist() == PINNED


def test_bits_look_random_along_seeds_steps_and_tokens():
    many, one = torch.arange(200_000), torch.zeros(1, dtype=torch.int64)
    for inputs in ((many, one, one), (one, many, one), (one, one, many), (many << 32, one, one)):
        bits = random_bits(*inputs)
        ones = ((bits[:, None] >> torch.arange(32)) & 1).double()  # (200_000, 32)
        noise = ones.shape[0] ** -0.5
        assert ((0 <= bits) & (bits < 2**32)).all()
        assert (ones.mean(0) - 0.5).abs().max() < 5 * noise / 2
        correlation = (2 * ones[1:] - 1).T @ (2 * ones[:-1] - 1) / len(ones)  # of one input's bits with the next one's
        assert correlation.abs().max() < 5.5 * noise


def test_the_smallest_exponentials_differ_and_the_largest_is_finite():
    drawn = exponential(torch.tensor([0, 1, 2, 3, 1000, 2**31, 2**32 - 1]))
    assert (drawn.diff() > 0).all() and drawn.isfinite().all()
    assert drawn[0].item() == pytest.approx(2.0**-33) and drawn[1].item() == pytest.approx(1.5 * 2.0**-32)
    assert drawn[5].item() == pytest.approx(0.6931472)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_rows_with_nan_or_infinite_logits_are_reported(odd):
    logits, ones = torch.randn(3, 50), torch.ones(3, 1)
    logits[1, 20] = odd
    tokens, finite = sample(logits, logits > 99, ones, ones, ones, None, torch.arange(3), torch.arange(3))
    assert finite.tolist() == [True, False, True] and ((0 <= tokens) & (tokens < 50)).all()
