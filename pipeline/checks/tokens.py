"""Checks of speech tokens: no end token, loops. Knows no samples.

Each check returns its finding, or an empty string. Speech without tokens passes.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.checks.measures import Measures
from pipeline.config import CheckConfig
from pipeline.data import TOKENS_PER_SECOND, Speech

LONGEST_LOOP = 50  # tokens, 2 s: longer than any loop seen so far


def find_no_eos(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    return f"no end token within {len(speech.tokens)} tokens" if speech.ended is False else ""


def find_repeated(speech: Speech, measures: Measures, options: CheckConfig, rate: int) -> str:
    loop = longest_loop(speech.tokens)
    if loop >= options.repeated_s * TOKENS_PER_SECOND:
        return f"{loop / TOKENS_PER_SECOND:.1f} s of speech tokens repeat"
    return ""


def longest_loop(tokens: np.ndarray | None) -> int:
    """Length in tokens of the longest stretch in which a phrase is repeated, at least twice in all."""
    periods = np.arange(1, min(LONGEST_LOOP, 0 if tokens is None else len(tokens) // 2) + 1)
    if not len(periods):
        return 0
    padded = np.append(tokens, np.full(len(periods), -1))  # -1 is no token
    later = sliding_window_view(padded, len(tokens))[1:]  # (periods, num_tokens): the tokens one period later
    positions = np.arange(len(tokens))
    differs = np.where(later != tokens, positions, -1)
    runs = (positions - np.maximum.accumulate(differs, axis=1)).max(axis=1)  # equal tokens in a row, by period
    return int((runs + periods)[runs >= periods].max(initial=0))
