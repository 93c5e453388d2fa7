"""The benchmark's numbers for the decoder, except its speed."""

from itertools import chain

import pytest

from pipeline.benchmark import t3
from pipeline.config import ChatterboxConfig, Precision
from pipeline.engine.chatterbox.token_stage import TokenStage


def test_bytes_moved_are_all_weights_each_step_and_each_rows_own_positions(engine, ask):
    decoders = TokenStage(engine.residency.models, engine.voice, ChatterboxConfig(batch_size="8"), usual="fp32")
    requests = [ask(seed=n, tokens=4) for n in range(9)]
    decoded = [one for _, one in chain.from_iterable(decoders.decode(requests, lambda: False))]
    weights = 2 * (3 + 1 + 2 * 4 + 4) * 1024 * 1024 + 2 * 2 * 1024 + 8194 * 1024  # tiny: two layers
    text = len(decoded[0].prompt.text)
    positions = 9 * ((text + 1 + text + 2 + text + 3 + text + 4) + (1 + 2 + 3 + 4))
    assert t3.bytes_moved(decoders.usual_decoder, decoded) == 4 * (5 * weights + positions * 2 * 2 * 1024)


@pytest.mark.long
def test_number_formats_are_compared_given_the_same_tokens(make_engine, ask, monkeypatch):
    monkeypatch.setattr(t3, "STEPS", 6)
    engine = make_engine(precision=Precision("bf16", "fp32", "fp32", "fp32"))
    engine.prepare()
    requests = [ask(seed=n, precision=engine.precision) for n in range(3)]
    agreed, divergence = t3.compare(engine, ChatterboxConfig(), requests)
    assert 0.8 < agreed <= 1 and 0 < divergence < 0.1
    same = [ask(seed=n) for n in range(3)]
    assert t3.compare(engine, ChatterboxConfig(), same) == (pytest.approx(1), 0)
