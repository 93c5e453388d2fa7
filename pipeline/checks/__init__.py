"""What makes speech bad: `judge` gives a verdict on one utterance. Knows no engine, file or retry.

Thresholds are options (`CheckConfig`). They come from what nine public tools use and their users report: the limits of
28 characters a second and of 1.5 s + 0.75 s a word, -42 dB for silence, -20 dB in the last 10 ms for a cut-off end.
A check is one line in `CHECKS`; `signal` has those on samples, `tokens` those on speech tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.checks import signal, tokens
from pipeline.checks.measures import Measures, measure
from pipeline.config import CheckConfig
from pipeline.data import Speech

__all__ = ["CHECKS", "Measures", "Verdict", "judge", "measure"]

Check = Callable[[Speech, Measures, CheckConfig, int], str]  # what was found, at a rate in Hz; empty: nothing
# Reason code and check, the most telling first.
CHECKS: dict[str, Check] = {
    "silent": signal.find_silent,
    "clipped": signal.find_clipped,
    "no_eos": tokens.find_no_eos,
    "repeated": tokens.find_repeated,
    "too_short": signal.find_too_short,
    "too_long": signal.find_too_long,
    "long_pause": signal.find_long_pause,
    "cut_off": signal.find_cut_off,
}


@dataclass(frozen=True)
class Verdict:
    """A reason code and what was found; both empty when the speech is good."""

    reason: str = ""
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return not self.reason


def judge(speech: Speech, rate: int, options: CheckConfig, unchecked: frozenset[str] = frozenset()) -> Verdict:
    """The first reason code that holds; `unchecked` are those that this speech cannot be judged by."""
    if speech.error:
        return Verdict("error", speech.error)
    if speech.component:
        return Verdict("nan", f"{speech.component} has made what is not finite")
    if not np.isfinite(speech.samples).all():
        return Verdict("nan", f"{np.count_nonzero(~np.isfinite(speech.samples))} samples are not finite")
    measures = measure(speech.samples, rate, speech.request.utterance.spoken_text, options.pause_floor_db)
    for reason, find in CHECKS.items():
        if reason not in unchecked and (detail := find(speech, measures, options, rate)):
            return Verdict(reason, detail)
    return Verdict()
