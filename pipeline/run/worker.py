"""A worker: the process that does a job under a supervisor. Knows nothing of what the job does.

`worker_process.py` starts it with the number of a socket. The supervisor's side sends a `WorkerTask`, then what it has
prepared meanwhile, then perhaps the number of a signal; when it closes, the supervisor is gone, and so is the worker.
The other way come `signs`.
"""

import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, NoReturn

from pipeline.errors import DeviceLost
from pipeline.process import STOPPING, die_with_parent, flush_streams
from pipeline.run.exit_code import exit_code_of
from pipeline.run.signs import ALIVE, ROW, Signs
from pipeline.run.stop import Stop


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is told at its start."""

    job: str  # "module:function": takes the config, a `Stop`, what waits for the prepared; returns the exit code
    config: Any
    log_settings: dict[str, Any]  # for `logging.config`
    argv: list[str]  # of the command


class WorkerStop(Stop):
    """A request to a worker never counts as the second one: its supervisor counts, and kills.

    A terminal and Slurm send a signal to both, so that it would be counted twice here.
    """

    def ask(self, signum: int) -> None:
        if not self._asked:
            self.begin(signum)


def main() -> NoReturn:
    """Do the task, and end without tearing down torch and CUDA, which takes seconds."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    die_with_parent()
    stop = WorkerStop(Signs(lambda sign: tell(link, sign)))
    stop.leaving = stop.signs.ended
    for signum in (signal.SIGUSR1, signal.SIGUSR2):  # for the launcher, where they come to all processes of a step
        signal.signal(signum, signal.SIG_IGN)
    stop.listen()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    wire = link.makefile("rb")
    try:
        task = pickle.load(wire)
    except (EOFError, pickle.UnpicklingError):  # the supervisor is gone already
        os._exit(1)
    prepared: Future[Any] = Future()
    threading.Thread(target=obey, args=(wire, stop, prepared), name="supervisor", daemon=True).start()
    code = do(task, stop, prepared)
    flush_streams()
    stop.signs.ended()
    os._exit(code)


def tell(link: socket.socket, sign: bytes) -> None:
    """Rows and signs of life without waiting: the work goes on where only the supervisor was stopped."""
    with suppress(OSError):  # full of signs of life, or the supervisor is gone, which `obey` sees
        if sign in (ALIVE, ROW):
            link.send(sign, socket.MSG_DONTWAIT)
        else:
            link.sendall(sign)


def obey(wire: BinaryIO, stop: Stop, prepared: Future[Any]) -> None:
    """Take what the supervisor has prepared; stop when it says so; end at once when it is gone."""
    try:
        prepared.set_result(pickle.load(wire))
        while asked := wire.read(1):
            stop.ask(asked[0])
    finally:
        os._exit(1)


def do(task: WorkerTask, stop: Stop, prepared: Future[Any]) -> int:
    """The exit code; a bug is printed with its traceback."""
    try:
        take_on(task)
        stop.grace_s = task.config.grace_s
        code = exit_code_of(lambda: run(task, stop, prepared))
        stop.check()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
        return 1


def take_on(task: WorkerTask) -> None:
    """Take the name and the ways of the command."""
    import logging.config

    sys.argv = task.argv
    sys.stdout.reconfigure(errors="backslashreplace")  # for titles that the terminal cannot show
    logging.config.dictConfig(task.log_settings)
    logging.raiseExceptions = False  # no traceback for a log line that cannot be written


def run(task: WorkerTask, stop: Stop, prepared: Future[Any]) -> int:
    """The job's exit code. Ends the process where only a new one can go on."""
    module, _, function = task.job.partition(":")
    try:
        return getattr(import_module(module), function)(task.config, stop, prepared.result)
    except DeviceLost as error:  # finalisers would free tensors of a dead context, and abort
        flush_streams()
        stop.signs.lost(str(error))
        os._exit(1)


if __name__ == "__main__":
    main()
