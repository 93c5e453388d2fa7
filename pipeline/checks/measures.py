"""Measures of a waveform: length, levels, pauses. Knows no threshold."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measures:
    """Levels are in dBFS; empty or silent audio has -120."""

    duration_s: float
    peak_db: float
    rms_db: float
    silence_ratio: float  # share of 10 ms frames below the floor
    longest_pause_s: float
    chars_per_second: float


def measure(samples: np.ndarray, rate: int, text: str, floor_db: float) -> Measures:
    """Measure `samples` (num_samples,) at `rate` Hz; `floor_db` is relative to the loudest 10 ms frame."""
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


def tail_db(samples: np.ndarray, rate: int) -> float:
    """Level of the last 10 ms in dBFS."""
    tail = samples[-(rate // 100) :].astype(np.float64)
    return _db(np.sqrt(np.mean(tail**2)) if len(tail) else 0.0)


def _db(amplitude: float) -> float:
    return float(20 * np.log10(max(float(amplitude), 1e-6)))
