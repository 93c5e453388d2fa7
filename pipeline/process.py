"""A process and its surroundings: signals, standard streams, the process that started it. Knows nothing of jobs."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # of Linux's prctl

_ends: tuple[int, int] | None = None  # of the pipe that signals come through
_listeners: list[Callable[[int], None]] = []  # one, once there is any


def hear_signals(flag: Callable[[int, FrameType | None], None] = lambda signum, frame: None) -> int:
    """From here on a signal that asks for an end is a byte in a pipe, and does nothing else but to call `flag`.

    A handler that did more could run anywhere, in a `__del__` that swallows what it raises, too. Returns the pipe's
    reading end. SIGHUP stays ignored where it was (nohup); SIGTERM does not (submitit has it ignored).
    """
    global _ends
    if _ends is None:
        _ends = os.pipe()
        os.set_blocking(_ends[1], False)
    signal.set_wakeup_fd(_ends[1], warn_on_full_buffer=False)
    for signum in STOPPING:
        if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, flag)
    return _ends[0]


def tell_signals(told: Callable[[int], None], flag: Callable[[int, FrameType | None], None]) -> None:
    """Call `told` with each such signal, also with those that came since `hear_signals`, on a thread of its own."""
    end, is_first = hear_signals(flag), not _listeners
    _listeners[:] = [told]
    if is_first:
        threading.Thread(target=_read_signals, args=(end,), name="signals", daemon=True).start()


def _read_signals(end: int) -> None:
    while True:
        for signum in os.read(end, 64):
            if signum in STOPPING:
                _listeners[0](signum)


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait until the end of the block; in a process started within it, until it unblocks them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def open_missing_streams() -> None:
    """Where the caller has closed a standard stream: else the next file opened would get what is printed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number, this one
            setattr(sys, name, open(number, mode, closefd=False))


def flush_streams() -> None:
    """Where the reader is gone, what is left goes nowhere, instead of failing at the interpreter's own flush."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def die_with_parent() -> None:
    """On Linux the kernel kills this process as soon as the thread that started it ends, whatever it is doing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
