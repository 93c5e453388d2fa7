"""The engine protocol: requests in, speech out. Knows nothing of books, files or checks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from pipeline.config import Precision, Sampling
from pipeline.data import Identity, Request, Speech


class Engine(Protocol):
    """Building one is cheap (no torch, no weights) and raises `UserError` for what is missing or wrong."""

    identity: Identity
    unchecked: frozenset[str]  # reason codes that this engine's speech cannot be judged by
    can_retry: bool  # another seed, precision or sampling can change what it says

    def prepare(self) -> None:
        """Check all that a run needs (device, files, shapes), loading no weights; `UserError` names the thing."""

    def begin_loading(self, sampling: Sampling) -> None:
        """Begin to load what first attempts with `sampling` need, while the caller prepares a folder.

        Called after `prepare`. What goes wrong is raised by `synthesize`, where it is needed.
        """

    @property
    def device(self) -> str:
        """Where it runs, as torch names it: `cpu`, `cuda`, `cuda:1`. Known after `prepare`."""

    @property
    def precision(self) -> Precision:
        """What a first attempt uses; no "auto" left. Known after `prepare`."""

    @property
    def safer(self) -> Precision | None:
        """The next safer precision that its device has; None: there is none."""

    def use(self, precision: Precision) -> None:
        """Use `precision` for first attempts from now on, and free what only the old one needed.

        Called after `prepare`, between two windows.
        """

    def max_tokens(self, predicted_s: float) -> int:
        """Token cap of a request whose speech is predicted to last so long."""

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Yield each request's speech as soon as it is ready, in any order; never raise because of one request.

        `stopping` is asked as often as work allows; once it is true, nothing more is yielded. `WorkError` when nothing
        can go on, `DeviceLost` when a new process could.
        """

    def in_use(self) -> dict[str, str]:
        """What is really in use (device, dtypes, kernels), for the log and the run record."""

    def gpu_memory_gib(self) -> float:
        """Peak device memory since the last call; 0 on a device that does not count it."""

    def padding(self) -> dict[str, float]:
        """Share of the computed work since the last call that was padding, by stage; empty: it computes no batches."""
