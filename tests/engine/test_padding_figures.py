"""What of the engine's work was padding, by stage, as the log and the run record tell it."""

import pytest

from pipeline.data import never
from pipeline.engine.chatterbox.tuning import TUNING, Tuning

STAGES = {"idle slots", "encoder rows", "flow packs", "vocoder groups"}


def test_every_stage_is_measured_and_a_window_begins_anew(engine, ask):
    engine.padding()  # of tests before this one
    list(engine.synthesize([ask(seed=seed, tokens=10 + seed) for seed in range(2)], never))
    shares = engine.padding()
    assert shares.keys() == STAGES and all(0 <= share < 1 for share in shares.values())
    assert shares["idle slots"] > 0.7  # two utterances in eight slots
    assert shares["encoder rows"] == 0  # alone, and a CPU pads to no multiple
    assert engine.padding() == {}


def test_rows_of_other_lengths_and_few_shapes_are_paid_for(engine, ask, monkeypatch):
    monkeypatch.setitem(TUNING, "cpu", Tuning(plain_frames=(10_000,), vocoder_frames=10_000, vocoder_step=32))
    engine.padding()
    list(engine.synthesize([ask(seed=seed, tokens=tokens) for seed, tokens in enumerate((10, 40))], never))
    shares = engine.padding()
    prompt = engine.residency.models.builtin_voice.prompt_token.shape[1]
    assert shares["encoder rows"] == pytest.approx(1 - (2 * prompt + 50) / (2 * (prompt + 40)))
    assert 0 < shares["vocoder groups"] < 1
