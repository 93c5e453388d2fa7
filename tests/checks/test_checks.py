import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checks import Verdict, judge, measure
from pipeline.checks.tokens import longest_loop
from pipeline.config import FP32, CheckConfig, Sampling
from pipeline.data import Request, Speech, Utterance

RATE = 24_000
TEXT = "She said nothing for a while, and then she laughed."  # 51 characters, 10 words


def tone(seconds, amplitude=0.5):
    """A 200 Hz tone that fades out over its last 60 ms, as speech does."""
    t = np.arange(round(seconds * RATE)) / RATE
    samples = (amplitude * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    samples[-1440:] *= np.linspace(1, 0, 1440, dtype=np.float32) ** 2
    return samples


def speech(samples, text=TEXT, **more):
    utterance = Utterance("b-001-00000", "b", 1, "", 0, 0, 0, len(text), text, text, 0.0)
    return Speech(Request(utterance, 1, Sampling(), FP32, 1000), samples, **more)


def reason(samples, text=TEXT, unchecked=frozenset(), **more):
    return judge(speech(samples, text, **more), RATE, CheckConfig(), unchecked).reason


def test_good_speech_has_no_reason():
    assert reason(tone(3.0), tokens=np.arange(75, dtype=np.int16), ended=True) == ""


def test_one_sample_that_is_not_a_number_is_found():
    samples = tone(3.0)
    samples[1000] = np.nan
    assert reason(samples) == "nan"


def test_infinity_counts_as_not_a_number():
    samples = tone(3.0)
    samples[5] = np.inf
    assert reason(samples) == "nan"


@pytest.mark.parametrize("samples", [np.zeros(72_000, np.float32), tone(3.0, 0.001), np.zeros(0, np.float32)])
def test_silence_is_found(samples):
    assert reason(samples) == "silent"


def test_clipping_is_found():
    assert reason(np.clip(tone(3.0, 3.0), -1, 1)) == "clipped"


def test_a_single_full_scale_sample_is_not_clipping():
    samples = tone(3.0)
    samples[7] = 1.0
    assert reason(samples) == ""


def test_speech_faster_than_anyone_talks_is_too_short():
    assert reason(tone(1.0)) == "too_short"


def test_a_short_exclamation_may_be_quick():
    assert reason(tone(0.25), "No!") == ""


def test_a_runaway_is_too_long():
    assert reason(tone(20.0)) == "too_long"


def test_numbers_may_take_longer_than_their_few_words():
    text = "It cost 1,234,567 dollars and 89 cents in 1923, no more."
    assert reason(tone(18.0), text) == ""


def test_reaching_the_token_cap_is_found():
    assert reason(tone(3.0), tokens=np.arange(75, dtype=np.int16), ended=False) == "no_eos"


def test_an_engine_without_tokens_is_not_judged_by_them():
    assert reason(tone(3.0), tokens=None, ended=None) == ""


def test_tokens_that_loop_are_found():
    tokens = np.concatenate([np.arange(20), np.tile([5, 6, 7, 8], 25)]).astype(np.int16)
    assert reason(tone(3.0), tokens=tokens, ended=True) == "repeated"


@pytest.mark.parametrize("period", [1, 2, 7, 31, 50])
def test_a_loop_is_measured_whatever_its_period(period):
    rng = np.random.default_rng(0)
    loop = np.tile(rng.permutation(6561)[:period], 200 // period)
    tokens = np.concatenate([rng.permutation(6561)[:40], loop, rng.permutation(6561)[:40]]).astype(np.int16)
    assert len(loop) <= longest_loop(tokens) <= len(loop) + period


def longest_loop_by_hand(tokens: list[int]) -> int:
    found = [0]
    for period in range(1, min(50, len(tokens) // 2) + 1):
        run = 0
        for now, before in zip(tokens[period:], tokens[:-period], strict=True):
            run = run + 1 if now == before else 0
            found.append(run + period if run >= period else 0)
    return max(found)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=130), st.integers(1, 9))
def test_a_loop_is_as_long_as_one_counts_by_hand(before, phrase, times):
    tokens = before + phrase * times
    assert longest_loop(np.array(tokens, np.int16)) == longest_loop_by_hand(tokens)


def test_a_phrase_said_twice_is_no_loop_of_three_seconds():
    phrase = np.arange(30)
    assert longest_loop(np.concatenate([phrase, phrase]).astype(np.int16)) == 60
    assert longest_loop(np.arange(500, dtype=np.int16)) == 0


def test_a_pause_in_the_middle_is_found():
    samples = np.concatenate([tone(1.5), np.zeros(3 * RATE, np.float32), tone(1.5)])
    assert reason(samples) == "long_pause"


def test_an_end_cut_off_in_full_voice_is_found():
    assert reason(tone(3.0)[: -RATE // 15]) == "cut_off"


def test_an_engine_that_cannot_be_judged_by_a_check_is_not():
    assert reason(tone(3.0)[: -RATE // 15], unchecked=frozenset({"cut_off"})) == ""


def test_what_the_engine_could_not_speak_keeps_its_own_words():
    assert judge(speech(np.zeros(0, np.float32), error="text too long"), RATE, CheckConfig()) == Verdict(
        "error",
        "text too long",
    )


def test_measures_are_in_the_units_they_name():
    found = measure(tone(2.0, 0.5), RATE, "x" * 30, -42)
    assert found.duration_s == 2.0 and found.chars_per_second == 15.0
    assert found.peak_db == pytest.approx(-6.02, abs=0.01)
    assert found.rms_db == pytest.approx(-9.03, abs=0.2)
    assert found.silence_ratio < 0.02


def test_half_a_recording_of_silence_has_a_silence_ratio_of_a_half():
    found = measure(np.concatenate([tone(1.0), np.zeros(RATE, np.float32)]), RATE, "x", -42)
    assert found.silence_ratio == pytest.approx(0.5, abs=0.01)
    assert found.longest_pause_s == pytest.approx(1.0, abs=0.02)
