"""Chatterbox with a voice of one's own: the numbers are stock's, and they are computed once."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from chatterbox.tts import ChatterboxTTS

from pipeline.clip import read_clip
from pipeline.config import VoiceConfig
from pipeline.engine.chatterbox import voice


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """12 s in stereo at 44.1 kHz: a buzz that glides, over noise."""
    rng = np.random.default_rng(3)
    time = np.arange(12 * 44_100) / 44_100
    left = np.sign(np.sin(2 * np.pi * (110 + 40 * np.sin(time)) * time)) * (0.2 + 0.1 * np.sin(9 * time))
    both = np.stack([left, 0.7 * left], axis=1) + 0.02 * rng.standard_normal((len(time), 2))
    path = tmp_path_factory.mktemp("clips") / "narrator.wav"
    soundfile.write(path, both, 44_100)
    return path


@pytest.fixture(scope="module")
def narrator(make_engine, clip):
    engine = make_engine(voice=VoiceConfig(path=str(clip)))
    engine.prepare()
    return engine


def test_conditionals_are_those_that_stock_prepares(narrator, clip, stock_t3):
    models = narrator.residency.models
    stock = ChatterboxTTS(stock_t3, *models.voice_modules(), models.tokenizer, "cpu")
    stock.prepare_conditionals(clip)
    ours = narrator.conditionals_of(read_clip(clip), "fp32")
    for name, tensor in {**vars(stock.conds.t3), **stock.conds.gen}.items():
        if hasattr(ours, name):
            assert torch.equal(getattr(ours, name), tensor), name
    assert ours.prompt_feat.shape == (1, 500, 80) and ours.prompt_token.shape == (1, 250)
    assert ours.cond_prompt_speech_tokens.shape == (1, 150)


def test_the_voice_is_heard_and_named(narrator, engine, ask, clip):
    (builtin,), (mine,) = engine.synthesize([ask()], lambda: False), narrator.synthesize([ask()], lambda: False)
    assert mine.error == "" and not np.array_equal(builtin.tokens, mine.tokens)
    assert narrator.identity.speaker == "narrator" and engine.identity.speaker == "builtin"
    assert narrator.identity.voice_sha256 == read_clip(clip).sha256 and engine.identity.voice_sha256 == ""


def test_the_next_run_computes_nothing_and_loads_no_voice_encoder(narrator, make_engine, ask, clip, monkeypatch):
    (first,) = narrator.synthesize([ask()], lambda: False)
    monkeypatch.setattr(voice, "compute", None)
    later = make_engine(voice=VoiceConfig(path=str(clip), name="Ann"))
    later.prepare()
    (second,) = later.synthesize([ask(exaggeration=0.5)], lambda: False)
    assert np.array_equal(first.samples, second.samples) and later.identity.speaker == "Ann"


@pytest.mark.long
def test_a_shorter_prompt_is_another_voice(narrator, make_engine, ask, clip, caplog):
    short = make_engine(voice=VoiceConfig(path=str(clip), prompt_seconds=1.0))
    short.prepare()
    with caplog.at_level(logging.INFO, logger="pipeline.engine.chatterbox.voice"):
        (speech,) = short.synthesize([ask()], lambda: False)
    assert speech.error == "" and "computing the conditionals" in caplog.text
    made = short.conditionals_of(read_clip(clip), "fp32")
    assert made.prompt_token.shape == made.cond_prompt_speech_tokens.shape == (1, 25)
