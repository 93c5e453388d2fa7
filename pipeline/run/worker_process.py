"""A worker seen from its supervisor: started, listened to, asked to stop, killed. Knows nothing of when and why."""

import os
import pickle
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from pipeline.errors import WorkError
from pipeline.process import signals_held
from pipeline.run.exit_code import KEPT

KILL_S = 10.0  # for the kernel to take back what a killed process has
KILLED = {
    signal.SIGKILL: "was killed (SIGKILL, as the out-of-memory killer does)",
    signal.SIGSEGV: "had a segmentation fault (SIGSEGV)",
    signal.SIGABRT: "was aborted (SIGABRT)",
    signal.SIGBUS: "had a bus error (SIGBUS)",
}


class WorkerProcess:
    """It is of the supervisor's process group, so that Ctrl-Z and `kill -9 -GROUP` reach both."""

    def __init__(self, task: Any) -> None:
        """`task`: what `worker.py` unpickles. `WorkError` if the system can start no process."""
        self._link, there = socket.socketpair()
        command = [sys.executable, "-P", "-m", "pipeline.run.worker", str(there.fileno())]
        path = os.pathsep.join(map(os.path.abspath, sys.path))  # it imports from the same folders
        environment = os.environ | {"PYTHONPATH": path}
        try:
            with there, signals_held():  # until it can handle them
                self._process = subprocess.Popen(command, pass_fds=(there.fileno(),), env=environment)
        except OSError as error:
            raise WorkError(f"no worker could be started: {error}; {KEPT}") from error
        self.send(task)

    def send(self, what: Any) -> None:
        with suppress(OSError):  # it may be dead already
            self._link.settimeout(None)
            self._link.sendall(pickle.dumps(what))

    def listen(self, seconds: float) -> bytes | None:
        """The next signs; None: there was none for so long; empty: it has ended, and there are no more."""
        self._link.settimeout(seconds)
        try:
            return self._link.recv(65_536)
        except TimeoutError:  # a child of it may hold its end open
            return None if self._process.poll() is None else b""
        except ConnectionResetError:  # it ended with a signal unread
            return b""

    def ask_to_stop(self, signum: int) -> None:
        with suppress(OSError):
            self._link.send(bytes([signum]))

    def kill(self) -> None:
        """With it goes what it was doing; what is durable stays so."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it may wait for a disk or a driver that hangs
            self._process.wait(KILL_S)

    def end(self) -> int:
        """Wait for its end; returns its exit code, -n after signal n."""
        self._link.close()
        return self._process.wait()


def describe_end(code: int) -> str:
    """How a worker ended that should not have, as a predicate."""
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    signum = signal.Signals(-code)
    return KILLED.get(signum) or f"was ended by {signum.name}"
