"""What a process does when it is asked to stop. Knows nothing of jobs."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from pipeline.config import GRACE_S
from pipeline.process import tell_signals
from pipeline.run.signs import Signs


def nothing() -> None:
    pass


class Stop:
    """Called, it says whether to stop; to ask is a sign of life.

    The first SIGTERM, SIGINT or SIGHUP ends the process at once. Inside `deferred`, where work must not be torn apart,
    it is remembered instead. Whatever is still going on `grace_s` later, or at a second one, is dropped: what is
    durable stays so. Other signals are left to others: a scheduler's launcher hears SIGUSR2 (submitit requeues by it).
    """

    def __init__(self, signs: Signs | None = None) -> None:
        self.signum = 0
        self.grace_s = GRACE_S
        self.signs = signs or Signs()
        self.leaving: Callable[[], None] = nothing  # what is done just before the process ends at once
        self._asked = self._deferring = False

    def __call__(self) -> bool:
        self.signs.alive()
        return self.signum != 0

    def listen(self) -> None:
        """Handle signals from here on, and those that came since `hear_signals`."""
        tell_signals(self.ask, self._flag)

    def check(self) -> None:
        """`SystemExit` if the process is to stop: for places where nothing is left half done."""
        if self():
            raise SystemExit(128 + self.signum)

    def ask(self, signum: int) -> None:
        """Begin to stop as if by this signal; at the second call, end at once."""
        if self._asked:
            self.signum = signum  # the main thread may be on its way out, too
            self.leave(128 + signum)
        self.begin(signum)
        with suppress(OSError):  # the terminal may be gone
            print(f"{signal.Signals(signum).name}: finishing what is in flight; again to stop at once", file=sys.stderr)

    def begin(self, signum: int) -> None:
        self._asked, self.signum = True, self.signum or signum
        if not self._deferring:
            self.leave(128 + self.signum)
        deadline = threading.Timer(self.grace_s, self.leave, (128 + self.signum,))
        deadline.daemon = True
        deadline.start()

    def leave(self, code: int) -> None:
        """End the process at once, from any thread."""
        self.leaving()
        os._exit(code)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _flag(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = self.signum or signum
