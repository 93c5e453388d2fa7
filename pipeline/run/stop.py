"""What a process does about SIGTERM and SIGINT. Knows nothing of jobs.

SIGUSR2 is left to a scheduler's launcher (submitit requeues by it).
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.config import GRACE_S


class Stop:
    """Called, it says whether a signal has come.

    The first signal ends the process at once. Inside `deferred`, where work must not be torn apart, it is remembered
    instead. Whatever is still going on `grace_s` later, or at a second signal, is dropped: what is durable stays so.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.grace_s = GRACE_S
        self._deferring = False

    def __call__(self) -> bool:
        return self.signum != 0

    def listen(self) -> None:
        """Handle signals from here on. A launcher (submitit) may have told the process to ignore SIGTERM."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, signum: int, _frame: Any) -> None:
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        deadline = threading.Timer(self.grace_s, os._exit, (128 + signum,))
        deadline.daemon = True
        deadline.start()
        if not self._deferring:
            raise SystemExit(128 + signum)
        print(f"{signal.Signals(signum).name}: finishing what is in flight; again to stop at once", file=sys.stderr)
