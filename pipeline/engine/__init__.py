"""The engine protocol: requests in, speech out. Knows nothing of books, files or checks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.book import Utterance
from pipeline.config import Precision, Sampling


@dataclass(frozen=True)
class Request:
    """One attempt at one utterance."""

    utterance: Utterance
    seed: int  # 0 <= seed < 2**63
    sampling: Sampling
    precision: Precision  # no "auto" left
    max_tokens: int  # speech tokens; 25 a second


@dataclass(frozen=True)
class Speech:
    """What came of a request. `error` is set, and `samples` empty, when the engine could not speak it at all."""

    request: Request
    samples: np.ndarray  # (num_samples,) float32 in [-1, 1], before the watermark
    tokens: np.ndarray | None = None  # (num_tokens,) int16 speech tokens without the end token; None: engine has none
    ended: bool | None = None  # the end token came before the cap; None: engine cannot tell
    error: str = ""
    component: str = ""  # of `Precision`, whose numbers were no longer finite; empty: nobody's


class NotFinite(FloatingPointError):
    """What a component of `Precision` has made is no number."""

    def __init__(self, component: str, what: str) -> None:
        super().__init__(what)
        self.component = component


@dataclass(frozen=True)
class Rung:
    """How an attempt differs from the first one. One that has been made already is not made again."""

    new_seed: bool = False
    precision: Precision | None = None  # None: as configured
    component: bool = False  # with that component alone in FP32 whose numbers were not finite, if it was one's
    sampling: Callable[[Sampling], Sampling] = lambda configured: configured


@dataclass(frozen=True)
class Identity:
    """What of an engine changes samples, known without loading weights; enters every utterance's key."""

    model: str
    revision: str  # hub commit, or hash of the local files, or the library's version
    speaker: str
    voice_sha256: str  # of the recording's bytes; "" for an engine's own voice
    options: dict[str, str | int | float]  # engine options that change samples


NO_IDENTITY = Identity("", "", "", "", {})  # for plans that are only looked at


class Engine(Protocol):
    """Building one is cheap (no torch, no weights) and raises `UserError` for what is missing or wrong."""

    identity: Identity
    sample_rate: int  # Hz
    unchecked: frozenset[str]  # reason codes that this engine's speech cannot be judged by

    def prepare(self) -> None:
        """Check all that a run needs (device, files, shapes), loading no weights; `UserError` names the thing."""

    @property
    def device(self) -> str:
        """Where it runs, as torch names it: `cpu`, `cuda`, `cuda:1`. Known after `prepare`."""

    @property
    def precision(self) -> Precision:
        """What a first attempt uses; no "auto" left. Known after `prepare`."""

    @property
    def safer(self) -> Precision | None:
        """What to use from here on when too many first attempts are bad; None: there is nothing safer."""

    def use(self, precision: Precision) -> None:
        """From here on; frees what only the precision until now needed. After `prepare`, and between two windows."""

    @property
    def ladder(self) -> Sequence[Rung]:
        """What to try when an attempt is bad, in order; empty: nothing. Known after `prepare`."""

    def max_tokens(self, predicted_s: float) -> int:
        """Token cap of a request whose speech is predicted to last so long."""

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Yield each request's speech as soon as it is ready, in any order; never raise for one request's sake.

        Once `stopping` is true, asked as often as work allows, yield no more. `WorkError` where nothing can go on,
        `DeviceLost` where a new process could.
        """

    def in_use(self) -> dict[str, str]:
        """What is really in use (device, dtypes, kernels), for the log and the run record."""

    def gpu_memory_gib(self) -> float:
        """Peak device memory since the last call; 0 without a device that counts it."""
