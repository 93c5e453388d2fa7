"""The values that rooms hand to each other: utterances, requests, speech. Knows nothing of how any of them is made."""

from dataclasses import dataclass

import numpy as np

from pipeline.config import Precision, Sampling

SAMPLE_RATE = 24_000  # Hz, of every engine's speech
FULL_SCALE = 32_768  # of 16-bit samples
TOKENS_PER_SECOND = 25  # speech tokens, of every engine that has them


@dataclass(frozen=True)
class Unspoken:
    """Characters `start` to `end` of a book that are left out on purpose, and why."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Utterance:
    """The unit of work: one synthesis call, one WAV, one row of the manifest."""

    id: str  # <book>-<chapter>-<index>, as in alice-001-00042
    book: str
    chapter: int
    chapter_title: str
    index: int  # in the chapter, from 0
    paragraph: int  # in the chapter, from 0
    char_start: int
    char_end: int
    text: str  # the book's characters; runs of white space are one space
    spoken_text: str  # exactly what the model is given
    pause_after_s: float


@dataclass(frozen=True)
class Identity:
    """All properties of an engine that change samples, known without loading weights. Part of every key."""

    model: str
    revision: str  # hub commit, or hash of the local files, or the library's version
    speaker: str
    voice_sha256: str  # of the recording's bytes; "" for an engine's own voice
    options: dict[str, str | int | float]  # engine options that change samples


NO_IDENTITY = Identity("", "", "", "", {})  # for plans that are only looked at


@dataclass(frozen=True)
class Request:
    """One attempt at one utterance."""

    utterance: Utterance
    seed: int  # 0 <= seed < 2**63
    sampling: Sampling
    precision: Precision  # no "auto" left
    max_tokens: int  # cap on the speech tokens


@dataclass(frozen=True)
class Speech:
    """The answer to a request. `error` is set, and `samples` empty, when the engine could not speak it at all."""

    request: Request
    samples: np.ndarray  # (num_samples,) float32 in [-1, 1], before the watermark
    tokens: np.ndarray | None = None  # (num_tokens,) int16 speech tokens without the end token; None: engine has none
    ended: bool | None = None  # the end token came before the cap; None: engine cannot tell
    error: str = ""
    component: str = ""  # the component of `Precision` whose numbers were not finite; empty: none


class NotFinite(FloatingPointError):
    """A component of `Precision` produced NaN or infinity."""

    def __init__(self, component: str, what: str) -> None:
        super().__init__(what)
        self.component = component


def never() -> bool:
    """For callers that never stop an engine early."""
    return False
