"""Counts utterances and reports progress: a bar on a terminal, log lines elsewhere, figures per window to a tracker.

Knows rows of the manifest, and nothing of how speech is made.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.telemetry.tracker import Tracker

log = logging.getLogger(__name__)

LOG_EVERY_S = 30.0  # between progress lines, without a terminal


@dataclass
class Window:
    """Counters of one window, or of the whole run."""

    started: float = field(default_factory=time.monotonic)
    utterances: int = 0
    failed: int = 0
    fallbacks: int = 0  # utterances that needed more than one attempt
    audio_s: float = 0.0
    tokens: int = 0
    bad_attempts: Counter[str] = field(default_factory=Counter)  # by reason code

    def add(self, row: dict[str, Any]) -> None:
        self.utterances += 1
        self.failed += row["status"] != "ok"
        self.fallbacks += len(row["attempts"]) > 1
        self.audio_s += row["duration"] or 0.0
        self.tokens += len(row["speech_tokens"] or ())

    def figures(self) -> dict[str, float]:
        wall = max(time.monotonic() - self.started, 1e-9)
        return {
            "utterances": self.utterances,
            "failed": self.failed,
            "fallbacks": self.fallbacks,
            "audio_s": round(self.audio_s, 3),
            "wall_s": round(wall, 3),
            "x_realtime": round(self.audio_s / wall, 2),
            "tokens_per_second": round(self.tokens / wall, 1),
            **{f"bad_attempts/{reason}": count for reason, count in sorted(self.bad_attempts.items())},
        }


class Telemetry:
    """Progress of a run that renders `total` utterances."""

    def __init__(self, total: int, tracker: Tracker) -> None:
        from tqdm import tqdm

        self._tracker = tracker
        self._total = total
        self._all = Window()
        self._window = Window()
        self._windows: list[dict[str, float]] = []
        self._logged = time.monotonic()
        self._bar = tqdm(total=total, unit="utt", disable=not sys.stderr.isatty(), dynamic_ncols=True)

    def start_window(self) -> None:
        self._window = Window()

    def count_bad_attempt(self, reason: str) -> None:
        self._window.bad_attempts[reason] += 1
        self._all.bad_attempts[reason] += 1

    def count(self, row: dict[str, Any]) -> None:
        """Count a durable row; a failed one is logged."""
        self._window.add(row)
        self._all.add(row)
        self._tracker.utterance(row)
        self._bar.set_postfix_str(self._state(), refresh=False)
        self._bar.update()
        if row["status"] != "ok":
            log.warning("%s failed after %d attempt(s): %s", row["id"], len(row["attempts"]), row["error"])
        if self._bar.disable and time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info(
                "%d of %d utterances, %s, %s left", self._all.utterances, self._total, self._state(), self._time_left()
            )

    def end_window(self, gpu_memory_gib: float, padding: Mapping[str, float]) -> None:
        """Log the window's figures. `padding`: the share of padding in a stage's work, by stage."""
        figures = self._window.figures() | {"gpu_memory_gib": round(gpu_memory_gib, 3)}
        figures |= {f"padding/{stage}": round(share, 4) for stage, share in padding.items()}
        self._windows.append(figures)
        self._tracker.log(figures)
        log.info("window done: %s", ", ".join(f"{name} {value:g}" for name, value in figures.items()))

    def finish(self) -> dict[str, Any]:
        """Close the bar and the tracker. Returns the figures of the run and of each window."""
        self._bar.close()
        figures = self._all.figures()
        self._tracker.finish(figures)
        return figures | {"windows": self._windows}

    def _state(self) -> str:
        wall = max(time.monotonic() - self._all.started, 1e-9)
        speed = self._all.audio_s / wall
        return f"{self._all.audio_s / 3600:.2f} h of audio, {speed:.0f}x real time, {self._all.failed} failed"

    def _time_left(self) -> str:
        wall, share = time.monotonic() - self._all.started, self._all.utterances / self._total
        minutes = wall * (1 - share) / share / 60
        return f"{minutes:.0f} min" if minutes >= 1 else f"{minutes * 60:.0f} s"
