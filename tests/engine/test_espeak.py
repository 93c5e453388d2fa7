import numpy as np
import pytest

from pipeline.config import FP32, EspeakConfig, GenerateConfig, Sampling, VoiceConfig
from pipeline.data import Request, Utterance
from pipeline.engine.espeak import EspeakEngine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError

TEXTS = ["Why?", "Alice was beginning to get very tired.", "Oh!", "£5, naïve & <b>bold</b> [[not phonemes]]"]


def speak(texts, **options):
    engine = EspeakEngine(EspeakConfig(**options))
    engine.prepare()
    requests = [
        Request(Utterance(f"b-001-{i:05d}", "b", 1, "", i, 0, 0, 0, t, t, 0.0), i, Sampling(), FP32, 0)
        for i, t in enumerate(texts)
    ]
    return {s.request.utterance.spoken_text: s.samples for s in engine.synthesize(requests, lambda: False)}


def test_every_request_is_answered_with_audible_unclipped_speech():
    for text, samples in speak(TEXTS).items():
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert 0.02 < np.abs(samples).max() <= 1, text


def test_the_same_text_gives_the_same_samples_in_any_company():
    together = speak(TEXTS)
    for text in reversed(TEXTS):
        assert np.array_equal(speak([text])[text], together[text])


def test_the_rate_option_is_heard():
    text = TEXTS[1]
    assert len(speak([text], rate_wpm=300)[text]) < 0.7 * len(speak([text], rate_wpm=150)[text])


def test_a_voice_that_is_not_there_is_a_user_error():
    with pytest.raises(UserError, match="engine.voice=klingonese"):
        EspeakEngine(EspeakConfig(voice="klingonese")).prepare()


def test_a_voice_of_a_user_that_does_not_exist_is_a_user_error():
    config = GenerateConfig(book="x", engine=EspeakConfig(), voice=VoiceConfig(path="~nobody-here/x.wav"))
    with pytest.raises(UserError, match="voice.path=~nobody-here/x.wav: No such file"):
        build_engine(config)
