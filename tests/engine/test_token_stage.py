"""Which requests share a decoder, and how large it is."""

from collections import Counter
from itertools import chain

import pytest
import torch

from pipeline.config import ChatterboxConfig, Precision
from pipeline.engine.chatterbox.memory import fit_slots
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.chatterbox.token_stage import TokenStage
from pipeline.errors import WorkError

BF16 = Precision("bf16", "fp32", "fp32", "fp32")


@pytest.fixture(scope="module")
def decode(engine):
    """Tokens by request."""
    decoders = TokenStage(
        engine.residency.models,
        lambda precision: engine.residency.models.builtin_voice,
        ChatterboxConfig(max_tokens=30),
        "fp32",
    )
    return lambda *requests: {
        request: decoded.tokens.tolist()
        for request, decoded in chain.from_iterable(decoders.decode(requests, stopping=lambda: False))
    }


KINDS = (dict(exaggeration=1.0), dict(cfg_weight=0.0), dict(top_p=0.5), dict(temperature=1.5))


def test_requests_of_all_kinds_are_decoded_together_as_alone(decode, ask):
    """What differs is one decoder's for all of its rows, or each row's own: neither must be mixed up."""
    requests = [ask(tokens=12, **sampling) for sampling in (dict(), *KINDS)]
    together = decode(*requests)
    assert together.keys() == set(requests)
    assert all(together[request] == decode(request)[request] for request in requests)
    assert len(set(map(tuple, together.values()))) >= 4


def test_a_text_longer_than_any_sentence_does_not_change_its_neighbours(decode, ask):
    long, short = ask("x " * 150, tokens=3), ask(tokens=3)
    together = decode(long, short)
    assert len(together[long]) == 3 and together[short] == decode(short)[short]


def test_what_is_tried_again_in_another_number_format_leaves_the_usual_decoder_as_it_is(ask, engine):
    options = ChatterboxConfig(batch_size="8")
    decoders = TokenStage(
        engine.residency.models, lambda precision: engine.residency.models.builtin_voice, options, "bf16"
    )

    def decode(*requests):
        return [len(decoded.tokens) for _, decoded in chain.from_iterable(decoders.decode(requests, lambda: False))]

    assert decode(*(ask(tokens=3, seed=seed, precision=BF16) for seed in range(9))) == [3] * 9
    usual = decoders.usual_decoder
    assert decode(*(ask(tokens=2, seed=seed) for seed in range(3))) == [2] * 3
    assert decode(ask(tokens=3, precision=BF16)) == [3] and decoders.usual_decoder is usual and usual.size == 8
    assert "1 slots" in decoders.in_use["t3 fp32"]


def test_a_gpus_batch_is_the_power_of_two_that_fits():
    h200, small = 0.55 * 139 * 2**30, 0.55 * 22 * 2**30
    assert [fit_slots(int(h200), mib * 2**20) for mib in (50, 290, 600, 100_000)] == [256, 256, 128, 1]
    assert [fit_slots(int(small), mib * 2**20) for mib in (50, 290, 600, 100_000)] == [128, 32, 16, 1]


@pytest.fixture
def short_of_memory(monkeypatch):
    """`short_of_memory(8)`: decoders of 8 slots or more do not fit, in building, reading or the fifth step."""

    def too_large(size: int, where: str) -> None:
        original, calls = getattr(Decoder, where), Counter()

        def failing(decoder, *args, **options):
            calls[decoder] += 1
            slots = args[2] if where == "__init__" else decoder.size
            if slots >= size and (where != "step" or calls[decoder] == 5):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(decoder, *args, **options)

        monkeypatch.setattr(Decoder, where, failing)

    return too_large


@pytest.mark.parametrize("where", ["__init__", "fill", "step"])
def test_what_does_not_fit_is_decoded_in_half_as_many_slots_and_nothing_is_lost(
    where, ask, engine, short_of_memory, caplog
):
    short_of_memory(16, where)
    decoders = TokenStage(
        engine.residency.models,
        lambda precision: engine.residency.models.builtin_voice,
        ChatterboxConfig(batch_size="32"),
        "fp32",
    )
    requests = [ask(f"He counted to {number}.", seed=number, tokens=3 + number % 5) for number in range(40)]
    decoded = dict(chain.from_iterable(decoders.decode(requests, lambda: False)))
    assert {request: len(one.tokens) for request, one in decoded.items()} == {r: r.max_tokens for r in requests}
    assert "8 slots" in decoders.in_use["t3 fp32"]
    assert [record.args[1] for record in caplog.records if "out of memory" in record.msg] == [16, 8]


def test_too_little_memory_for_a_single_slot_is_said_in_one_line(ask, engine, short_of_memory):
    short_of_memory(1, "fill")
    decoders = TokenStage(
        engine.residency.models, lambda precision: engine.residency.models.builtin_voice, ChatterboxConfig(), "fp32"
    )
    with pytest.raises(WorkError, match="too little memory even for engine.batch_size=1: lower engine.max_tokens=1000"):
        list(decoders.decode([ask()], lambda: False))
