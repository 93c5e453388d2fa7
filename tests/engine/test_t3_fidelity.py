"""The decoder draws what stock's `T3.inference` draws: the same distribution at every step, the same greedy tokens."""

import os
from dataclasses import replace
from itertools import chain

import pytest
import torch

from pipeline.benchmark.stock import load_t3
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.sampler import process

TEXTS = (
    "A candle came down the stair. Nobody was carrying it, and nobody seemed to find that strange in the least.",
    "Oh!",
    "He turned his horse, and then he heard it: a small, dry cough.",
)
SAMPLINGS = (
    dict(),
    dict(cfg_weight=1.3, temperature=1.7, repetition_penalty=2.0, min_p=0.01, top_p=0.6, exaggeration=1.2),
    dict(temperature=1.0, repetition_penalty=1.0, min_p=0.0),
)
NEAR_TIE = 1e-4  # of the logits' spread


@pytest.fixture(scope="module")
def greedy(make_prompt, run_stock):
    """Prompts of ragged lengths, and stock's 200 greedy steps for each."""
    prompts = [make_prompt(text, tokens=200, min_p=1.0) for text in TEXTS]
    return {prompt: run_stock(prompt) for prompt in prompts}


def beside(decoder, expected):
    """Decode prompts with stock's tokens forced on every slot; yields stock's steps and our probabilities."""
    decoder.fill(list(expected))
    for number in range(-1, max(map(len, expected.values()))):  # the first BOS comes before all tokens
        logits, row = decoder.logits(), decoder.slots
        shares = process(logits, row.seen, row.penalty, row.temperature, row.min_p, row.top_p)
        forced = torch.zeros(decoder.size, dtype=torch.int64)
        for slot, prompt in decoder.prompts.items():
            if 0 <= number < len(expected[prompt]):
                forced[slot] = expected[prompt][number].token
                yield expected[prompt][number], shares[slot] / shares[slot].sum()
        decoder.advance(forced, torch.tensor(True))


def best_two(step):
    """Stock's two likeliest tokens, if they are so near that rounding decides between them."""
    values, tokens = step.scores.topk(2)
    near = values[0] - values[1] <= NEAR_TIE * step.scores[:6561].std()
    return tokens.tolist() if near else []


@pytest.mark.parametrize("size", [3, 8])
def test_greedy_tokens_are_stocks_for_200_steps(size, greedy, make_decoder):
    steps = list(beside(make_decoder(size), greedy))
    assert len(steps) == 600
    for step, probs in steps:
        assert probs.argmax() in (step.token, *best_two(step))


@pytest.mark.parametrize("size", [1, 2])
def test_greedy_tokens_are_stocks_through_a_queue(size, greedy, make_decoder):
    """Up to the first near tie: nothing is forced here."""
    expected = {replace(prompt, max_tokens=60): steps[:60] for prompt, steps in greedy.items()}
    decoded = {one.prompt: one.tokens.tolist() for one in chain.from_iterable(decode(make_decoder(size), expected))}
    for prompt, steps in expected.items():
        until = next((number for number, step in enumerate(steps) if best_two(step)), 60)
        assert decoded[prompt][:until] == [step.token for step in steps][:until] and until > 20


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_probabilities_are_stocks_when_its_tokens_are_forced(sampling, make_decoder, make_prompt, run_stock):
    prompts = [make_prompt(text, tokens=25, **sampling) for text in TEXTS]
    decoder = make_decoder(4, exaggeration=prompts[0].sampling.exaggeration)
    for step, probs in beside(decoder, {prompt: run_stock(prompt) for prompt in prompts}):
        torch.testing.assert_close(probs, step.probs, atol=1e-5, rtol=0)


def test_without_cfg_probabilities_are_stocks_too(make_decoder, make_prompt, run_stock):
    """Stock always has two rows; here its cfg_weight is 0."""
    prompts = [make_prompt(text, tokens=15, cfg_weight=0.0) for text in TEXTS]
    for step, probs in beside(make_decoder(3, cfg=False), {prompt: run_stock(prompt) for prompt in prompts}):
        torch.testing.assert_close(probs, step.probs, atol=1e-5, rtol=0)


def test_each_row_has_its_own_sampling(make_decoder, make_prompt, run_stock):
    each = zip(TEXTS, (dict(top_p=0.3), dict(cfg_weight=1.0, temperature=2.0), dict(min_p=0.3)), strict=True)
    prompts = [make_prompt(text, tokens=15, **sampling) for text, sampling in each]
    for step, probs in beside(make_decoder(3), {prompt: run_stock(prompt) for prompt in prompts}):
        torch.testing.assert_close(probs, step.probs, atol=1e-5, rtol=0)


@pytest.mark.long
def test_at_full_size_greedy_tokens_and_probabilities_are_stocks(
    cache, make_engine, make_decoder, make_prompt, run_stock
):
    """Takes 3 GB of disk and 8 GB of memory."""
    full = make_engine(checkpoint="stand-in", cache=os.environ.get("CHATTERBOX_BATCH_CACHE", str(cache)))
    full.prepare()
    stock, voice = (
        load_t3(full.residency.models.folder, full.residency.models.device),
        full.residency.models.builtin_voice,
    )
    prompts = [make_prompt(text, tokens=60, min_p=min_p) for text, min_p in zip(TEXTS, (1.0, 0.05, 0.0), strict=True)]
    expected = {prompt: run_stock(prompt, stock, voice) for prompt in prompts}
    for step, probs in beside(make_decoder(3, models=full.residency.models), expected):
        torch.testing.assert_close(probs, step.probs, atol=1e-4, rtol=0)
        assert probs.argmax() in (step.probs.argmax(), *best_two(step))
