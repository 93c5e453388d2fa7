"""Checks of samples: silent, clipped, too short or long for the text, pauses, cut-off ends. Knows no speech tokens.

Each check returns its finding, or an empty string. `rate` is in Hz.
"""

import numpy as np

from pipeline.checks.measures import Measures, tail_db
from pipeline.config import CheckConfig
from pipeline.data import Speech

SHORT_TEXT = 40  # characters; the rate of a shorter text means nothing


def find_silent(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    return f"{measures.rms_db:.0f} dBFS RMS" if measures.rms_db < options.silent_db else ""


def find_clipped(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    clipped = np.count_nonzero(np.abs(speech.samples) >= options.clipped_level) / max(len(speech.samples), 1)
    return f"{clipped:.1%} of the samples" if clipped > options.clipped_share else ""


def find_too_short(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    text = speech.request.utterance.spoken_text
    if len(text) > SHORT_TEXT and measures.chars_per_second > options.max_chars_per_second:
        return f"{measures.duration_s:.2f} s for {len(text)} characters"
    return ""


def find_too_long(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    limit = max_duration_s(speech.request.utterance.spoken_text, options)
    return f"{measures.duration_s:.2f} s, at most {limit:.2f} s expected" if measures.duration_s > limit else ""


def find_long_pause(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    return f"{measures.longest_pause_s:.2f} s of silence" if measures.longest_pause_s > options.max_pause_s else ""


def find_cut_off(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    tail = tail_db(speech.samples, rate) - measures.peak_db
    return f"the last 10 ms are at {tail:.0f} dB of the peak" if tail > options.cut_off_db else ""


def max_duration_s(text: str, options: CheckConfig) -> float:
    """Seconds that `text` may last. Each digit counts as a word, and so do six letters of a very long word."""
    words = max(len(text.split()), len(text) / 6) + sum(c.isdigit() for c in text)
    return options.too_long_base_s + options.too_long_per_word_s * words
