"""Checks of speech: `judge` gives a verdict on one utterance. Knows no engine, file or retry.

Thresholds are options (`CheckConfig`). Their defaults come from nine public tools and the reports of their users: at
most 28 characters a second, at most 1.5 s + 0.75 s a word, -42 dB for silence, -20 dB in the last 10 ms for a cut-off
end. A check is one line in `CHECKS`; `signal` has the checks of samples, `tokens` those of speech tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.checks import signal, tokens
from pipeline.checks.measures import Measures, measure
from pipeline.config import CheckConfig
from pipeline.data import Speech

__all__ = ["CHECKS", "Measures", "Verdict", "judge", "measure"]

Check = Callable[[Speech, Measures, CheckConfig, int], str]  # (speech, measures, options, rate in Hz) -> finding
# By reason code. The first check that finds something gives the reason, so the most specific ones come first.
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
    """A reason code and the finding; both are empty for good speech."""

    reason: str = ""
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return not self.reason


def judge(speech: Speech, rate: int, options: CheckConfig, unchecked: frozenset[str] = frozenset()) -> Verdict:
    """The first reason code that applies. `rate` is in Hz; `unchecked` are reason codes to skip."""
    if speech.error:
        return Verdict("error", speech.error)
    if speech.component:
        return Verdict("nan", f"{speech.component} produced NaN or infinity")
    if not np.isfinite(speech.samples).all():
        return Verdict("nan", f"{np.count_nonzero(~np.isfinite(speech.samples))} samples are not finite")
    measures = measure(speech.samples, rate, speech.request.utterance.spoken_text, options.pause_floor_db)
    for reason, find in CHECKS.items():
        if reason not in unchecked and (detail := find(speech, measures, options, rate)):
            return Verdict(reason, detail)
    return Verdict()
