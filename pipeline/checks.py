"""What makes speech bad. Pure functions on samples and tokens; knows no engine, file or retry.

Thresholds are options (`CheckConfig`) and come from what nine public tools use and their users report: the limits of
28 characters a second and of 1.5 s + 0.75 s a word, -42 dB for silence, -20 dB in the last 10 ms for a cut-off end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.config import CheckConfig
from pipeline.engine import Speech

TOKENS_PER_SECOND = 25
LONGEST_LOOP = 50  # tokens: 2 s, longer than any phrase a decoder was seen to loop on
SHORT_TEXT = 40  # characters; below it a rate says nothing


@dataclass(frozen=True)
class Measures:
    """A waveform in numbers. Levels are relative to full scale; empty or silent audio has -120 dB."""

    duration_s: float
    peak_db: float
    rms_db: float
    silence_ratio: float  # share of 10 ms frames below the floor
    longest_pause_s: float
    chars_per_second: float


def measure(samples: np.ndarray, rate: int, text: str, floor_db: float) -> Measures:
    """Measure `samples` (num_samples,) at `rate` Hz; `floor_db` is against the loudest 10 ms frame."""
    duration = len(samples) / rate
    squares = samples.astype(np.float64)
    squares *= squares
    levels = _levels(squares, rate // 100)  # (num_frames,)
    silent = levels <= max(levels.max(initial=-120.0) + floor_db, -120.0)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], silent.view(np.int8), [0]))))
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    return Measures(
        duration_s=duration,
        peak_db=_db(max(samples.max(initial=0.0), -samples.min(initial=0.0))),
        rms_db=_db(np.sqrt(squares.mean()) if len(samples) else 0.0),
        silence_ratio=float(silent.mean()) if len(silent) else 1.0,
        longest_pause_s=longest / 100,
        chars_per_second=len(text) / duration if duration else 0.0,
    )


def _levels(squares: np.ndarray, frame: int) -> np.ndarray:
    """RMS of each whole frame in dBFS, from the samples' squares. (num_frames,)"""
    whole = squares[: len(squares) // frame * frame].reshape(-1, frame)
    return 20 * np.log10(np.maximum(np.sqrt(whole.mean(axis=1)), 1e-6))


def judge(speech: Speech, rate: int, options: CheckConfig, unchecked: frozenset[str] = frozenset()) -> tuple[str, str]:
    """The first reason code that holds and what was found; two empty strings when the speech is good."""
    if speech.error:
        return "error", speech.error
    if speech.component:
        return "nan", f"{speech.component} has made what is not finite"
    if not np.isfinite(speech.samples).all():
        return "nan", f"{np.count_nonzero(~np.isfinite(speech.samples))} samples are not finite"
    text = speech.request.utterance.spoken_text
    found = measure(speech.samples, rate, text, options.pause_floor_db)
    for reason, detail in _findings(speech, rate, text, found, options):
        if reason not in unchecked:
            return reason, detail
    return "", ""


def _findings(speech: Speech, rate: int, text: str, found: Measures, options: CheckConfig):
    """Every reason code that holds, the most telling first."""
    if found.rms_db < options.silent_db:
        yield "silent", f"{found.rms_db:.0f} dBFS RMS"
    clipped = np.count_nonzero(np.abs(speech.samples) >= options.clipped_level) / max(len(speech.samples), 1)
    if clipped > options.clipped_share:
        yield "clipped", f"{clipped:.1%} of the samples"
    if speech.ended is False:
        yield "no_eos", f"no end token within {len(speech.tokens)} tokens"
    if (loop := longest_loop(speech.tokens)) >= options.repeated_s * TOKENS_PER_SECOND:
        yield "repeated", f"{loop / TOKENS_PER_SECOND:.1f} s of speech tokens repeat"
    if len(text) > SHORT_TEXT and found.chars_per_second > options.max_chars_per_second:
        yield "too_short", f"{found.duration_s:.2f} s for {len(text)} characters"
    if found.duration_s > (limit := longest_s(text, options)):
        yield "too_long", f"{found.duration_s:.2f} s, at most {limit:.2f} s expected"
    if found.longest_pause_s > options.max_pause_s:
        yield "long_pause", f"{found.longest_pause_s:.2f} s of silence"
    if (tail := _tail_db(speech.samples, rate) - found.peak_db) > options.cut_off_db:
        yield "cut_off", f"the last 10 ms are at {tail:.0f} dB of the peak"


def longest_s(text: str, options: CheckConfig) -> float:
    """Seconds that `text` may last: a digit counts as a word, and so do six letters of a monster word."""
    words = max(len(text.split()), len(text) / 6) + sum(c.isdigit() for c in text)
    return options.too_long_base_s + options.too_long_per_word_s * words


def longest_loop(tokens: np.ndarray | None) -> int:
    """Length in tokens of the longest stretch that repeats itself at some period, at least twice over."""
    periods = np.arange(1, min(LONGEST_LOOP, 0 if tokens is None else len(tokens) // 2) + 1)
    if not len(periods):
        return 0
    behind = np.append(tokens, np.full(len(periods), -1))  # which is no token
    later = sliding_window_view(behind, len(tokens))[1:]  # (periods, num_tokens): the tokens so many places on
    places = np.arange(len(tokens))
    differs = np.where(later != tokens, places, -1)
    runs = (places - np.maximum.accumulate(differs, axis=1)).max(axis=1)  # equal ones in a row, by period
    return int((runs + periods)[runs >= periods].max(initial=0))


def _tail_db(samples: np.ndarray, rate: int) -> float:
    """Level of the last 10 ms in dBFS."""
    tail = samples[-(rate // 100) :].astype(np.float64)
    return _db(np.sqrt(np.mean(tail**2)) if len(tail) else 0.0)


def _db(amplitude: float) -> float:
    return float(20 * np.log10(max(float(amplitude), 1e-6)))
