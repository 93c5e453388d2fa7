import numpy as np
import pytest

from pipeline.config import WatermarkConfig
from pipeline.errors import UserError
from pipeline.store.wav import to_float, to_pcm16
from pipeline.watermark import build_watermarker

from ..engine.test_espeak import speak

TEXTS = ["Oh!", "It was the best of times, it was the worst of times, it was the age of wisdom."]


@pytest.fixture(scope="module")
def perth():
    return build_watermarker(WatermarkConfig(), "cpu")


@pytest.mark.parametrize("text", TEXTS)
def test_the_watermark_is_found_again_in_sixteen_bit_samples(perth, text):
    (marked,) = perth.apply([speak([text])[text]], 24_000)
    assert perth.score([to_float(to_pcm16(marked))], 24_000)[0] > 0.9


@pytest.mark.parametrize("text", TEXTS)
def test_speech_without_a_watermark_has_a_low_score(perth, text):
    assert perth.score([speak([text])[text]], 24_000)[0] < 0.2


@pytest.mark.parametrize("text", TEXTS)
def test_not_a_sample_is_lost_and_the_sound_hardly_changes(perth, text):
    samples = speak([text])[text]
    (marked,) = perth.apply([samples], 24_000)
    assert marked.shape == samples.shape and marked.dtype == np.float32
    error = np.sqrt(np.mean((marked - samples) ** 2)) / np.sqrt(np.mean(samples**2))
    assert 0 < error < 0.2


def test_silence_has_no_watermark(perth):
    assert perth.score([np.zeros(24_000, np.float32)], 24_000) == [0]


@pytest.mark.parametrize("length", [1, 100, 771])
def test_even_a_click_is_marked_and_scored(perth, length):
    (marked,) = perth.apply([np.ones(length, np.float32)], 24_000)
    assert marked.shape == (length,) and 0 <= perth.score([marked], 24_000)[0] <= 1


def test_marking_many_is_marking_each(perth):
    samples = list(speak(TEXTS).values())
    marked = perth.apply(samples, 24_000)
    assert all(np.array_equal(one, *perth.apply([before], 24_000)) for one, before in zip(marked, samples, strict=True))
    assert perth.score(marked, 24_000) == [score for one in marked for score in perth.score([one], 24_000)]


def test_no_watermarker_is_a_user_error_not_a_missing_watermark(monkeypatch):
    import perth as library

    monkeypatch.setattr(library, "PerthImplicitWatermarker", None)  # as Perth does without pkg_resources
    with pytest.raises(UserError, match="no watermarker"):
        build_watermarker(WatermarkConfig(), "cpu")


def test_only_the_explicit_option_leaves_it_out():
    samples = np.linspace(-1, 1, 100, dtype=np.float32)
    unmarked = build_watermarker(WatermarkConfig(enabled=False), "cuda")
    assert np.array_equal(unmarked.apply([samples], 24_000), [samples]) and unmarked.score([samples], 24_000) == [None]
