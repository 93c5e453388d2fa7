"""Any number of prompts through a few slots: every result comes, and none depends on the other prompts."""

from collections import defaultdict
from dataclasses import replace
from itertools import chain

import pytest
import torch

from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.cache import bytes_per_row

TEXTS = (
    "Oh!",
    "A candle came down the stair. Nobody was carrying it, and nobody seemed to find that strange in the least.",
    "He turned his horse, and then he heard it: a small, dry cough.",
    "Is anyone there?",
    "Nobody came to the door of the old house, and no light moved behind the shutters.",
)
END = 6562


def decode_all(decoder, prompts):
    """The results, as they come."""
    return list(chain.from_iterable(decode(decoder, prompts)))


@pytest.fixture
def watched(monkeypatch):
    """Calls `change(prompt, step, logits)` for each active row of each step, before a token is drawn."""

    def watch(decoder, change):
        logits_of = decoder.logits

        def logits():
            logits = logits_of()
            for slot, prompt in decoder.prompts.items():
                if decoder.slots.active[slot]:
                    change(prompt, decoder.slots.step[slot].item(), logits[slot])
            return logits

        monkeypatch.setattr(decoder, "logits", logits)

    return watch


@pytest.fixture
def bits(watched):
    """Decode prompts; by prompt, the logits of all steps and the tokens."""

    def run(decoder, *prompts):
        logits = defaultdict(list)
        watched(decoder, lambda prompt, step, row: logits[prompt].append(row.clone()))
        return {one.prompt: (torch.stack(logits[one.prompt]), one.tokens) for one in decode_all(decoder, prompts)}

    return run


@pytest.mark.parametrize("cfg", [True, False])
def test_an_utterance_has_the_same_bits_alone_in_a_batch_and_after_a_refill(cfg, make_decoder, make_prompt, bits):
    """With 8 slots, as the engine has them on a CPU: below that, MKL treats a matrix's last rows otherwise."""
    prompts = [make_prompt(TEXTS[seed % 5], seed=seed, tokens=4 + seed) for seed in range(11)]
    decoder = make_decoder(8, cfg=cfg)
    together = bits(decoder, *prompts)  # the last three refill slots
    backwards = bits(make_decoder(8, max_tokens=40, cfg=cfg), *reversed(prompts))
    for prompt in (prompts[0], prompts[4], prompts[9]):
        alone = bits(decoder, prompt)
        for logits, tokens in (together[prompt], backwards[prompt]):
            assert torch.equal(logits, alone[prompt][0]) and torch.equal(tokens, alone[prompt][1])
            assert len(tokens) == prompt.max_tokens


@pytest.mark.parametrize("size", [1, 2, 7])
def test_every_prompt_comes_back_once_with_as_many_tokens_as_it_may_have(size, make_decoder, make_prompt):
    prompts = [make_prompt(TEXTS[number % 5], seed=number, tokens=1 + number) for number in range(7)]
    decoded = list(decode_all(make_decoder(size), prompts))
    assert sorted(one.prompt.seed for one in decoded) == list(range(7))
    assert all(len(one.tokens) == one.prompt.max_tokens and not one.ended and one.finite for one in decoded)


def test_the_end_token_ends_an_utterance_even_where_the_cap_does(make_decoder, make_prompt, watched):
    def end_after_ten(prompt, step, logits):
        if step == 11:  # steps 0 and 1 read BOS; step 1 draws the first token
            logits[END] = 1e4

    decoder = make_decoder(2)
    watched(decoder, end_after_ten)
    prompts = [make_prompt(tokens=tokens) for tokens in (25, 11, 10)]
    ends = {one.prompt.max_tokens: (len(one.tokens), one.ended) for one in decode_all(decoder, prompts)}
    assert ends == {25: (11, True), 11: (11, True), 10: (10, False)}


def test_a_row_of_nan_is_reported_and_changes_neither_its_neighbour_nor_its_successor(
    make_decoder, make_prompt, bits, watched
):
    bad, neighbour, successor = [make_prompt(text, seed=seed) for seed, text in enumerate(TEXTS[:3])]
    decoder = make_decoder(2)
    expected = bits(decoder, neighbour, successor)

    def break_it(prompt, step, logits):
        if prompt is bad and step == 5:
            slot = next(slot for slot, own in decoder.prompts.items() if own is bad)
            decoder.cache.own[:, :, [slot, 2 + slot]] = torch.nan
            logits.fill_(torch.nan)

    watched(decoder, break_it)
    decoded = {one.prompt: one for one in decode_all(decoder, [bad, neighbour, successor])}
    assert not decoded[bad].finite and not decoded[bad].ended and len(decoded[bad].tokens) == 5
    for prompt in (neighbour, successor):
        assert decoded[prompt].finite and torch.equal(decoded[prompt].tokens, expected[prompt][1])


def test_a_seed_and_a_text_change_the_tokens(make_decoder, make_prompt):
    prompts = make_prompt(), make_prompt(seed=2), make_prompt(TEXTS[1]), make_prompt()
    decoded = {one.prompt: one.tokens.tolist() for one in decode_all(make_decoder(4), prompts)}
    first, *others, again = [decoded[prompt] for prompt in prompts]
    assert first == again and first not in others


def test_decoding_stops_between_steps_when_asked(make_decoder, make_prompt):
    prompts, decoder, steps = [make_prompt(tokens=tokens) for tokens in (5, 10, 15)], make_decoder(3), []

    def stopping():
        steps.append(None)
        return len(steps) > 8

    assert [one.prompt for one in chain.from_iterable(decode(decoder, prompts, stopping))] == prompts[:1]
    assert len(steps) == 9


def test_a_caller_may_abandon_a_call_and_decode_again(make_decoder, make_prompt):
    prompts, decoder = [make_prompt(tokens=tokens) for tokens in (5, 10, 15)], make_decoder(2)
    expected = {one.prompt: one.tokens.tolist() for one in decode_all(decoder, prompts)}
    assert next(filter(None, decode(decoder, prompts)))[0].prompt is prompts[0]
    assert {one.prompt: one.tokens.tolist() for one in decode_all(decoder, prompts)} == expected


@pytest.mark.parametrize(
    ("text", "cap", "message"),
    [((), 5, "0 text tokens"), ((1,) * 129, 5, "129 text"), ((704,), 5, "not have"), ((-1,), 5, "not have")]
    + [((1,), 0, "cap of 0"), ((1,), 41, "cap of 41")],
)
def test_indices_are_checked_before_they_reach_the_device(text, cap, message, make_decoder, make_prompt):
    decoder = make_decoder(1, max_tokens=40)
    with pytest.raises(ValueError, match=message):
        decoder.fill([replace(make_prompt(), text=text, max_tokens=cap)])
    decoder.fill([replace(make_prompt(), text=(1,) * 128, max_tokens=40)])
    while not decoder.step():
        pass
    assert len(decoder.take([0])[0].tokens) == 40


def test_the_memory_of_a_row_is_what_the_arithmetic_says(make_decoder):
    own = make_decoder(3).cache.own
    assert own.nbytes == 6 * bytes_per_row(2, 1024, 128 + 200 + 2, torch.float32)
    assert bytes_per_row(30, 1024, 1, torch.bfloat16) == 122_880
