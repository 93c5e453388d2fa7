"""W&B's own process: the only module that imports wandb. `tracker.Wandb` starts it, and kills it if need be.

It reads lines of JSON from stdin: one for the start, one for each window or table, one for the end. It writes only
errors to stdout, as plain text. wandb's waits, output, threads, exit hooks and its own child cannot reach the job.
"""

import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from shlex import quote
from textwrap import shorten
from typing import Any, BinaryIO

from pipeline.durable import write_durably
from pipeline.process import STOPPING

# Limits for a server that does not answer. The job waits `tracker.FINISH_S` at its end: on a machine that is not
# overloaded, that is enough for START_S and SEND_S, and for TABLE_S and SEND_S.
START_S = 5  # for the answer at the start; after it the run goes on offline
TABLE_S = 3  # for a table: wandb queries the server first, and waits
SEND_S = 5  # for the rest at the end; after it wandb completes its file, for `wandb sync`

RESTARTS = 5  # of wandb's own child


def main() -> None:
    for signum in (*STOPPING, signal.SIGUSR1, signal.SIGUSR2):  # schedulers send them to all processes of a job
        signal.signal(signum, signal.SIG_IGN)  # the job ends this one
    lines, error_pipe = take_pipes()
    start = json.loads(next(lines))
    run = LastingRun(start, error_pipe)
    try:
        run.catch_up()
        for line in lines:
            message = json.loads(line)
            run.told.append(message)
            run.catch_up()
            if "summary" in message:
                return
    except (Exception, SystemExit) as error:  # wandb.teardown() calls exit if wandb's own child has failed
        report(error_pipe, error, start["folder"] if run.run else None)
        tear_down()
    os._exit(1)  # skips exit hooks and stuck threads; reached without an error if the job died


class LastingRun:
    """A W&B run that is told all it may have lost where a signal has ended wandb's own child.

    That is a program in Go that handles all signals, so none can be kept from it, and it holds figures in memory.
    """

    def __init__(self, start: dict[str, Any], error_pipe: BinaryIO) -> None:
        self.told: list[dict[str, Any]] = []  # all that the job has sent
        self.run: Any = None
        self._start, self._error_pipe = start, error_pipe
        self._known = 0  # how many of `told` wandb has
        self._first = -1  # the run's step at its start; each message is one
        self._restarts = 0

    def catch_up(self) -> None:
        """Start the run if there is none, and tell it what it does not know yet."""
        while True:
            try:
                self._begin()
                while self._known < len(self.told):
                    tell(self.run, self.told[self._known])
                    self._known += 1
                return
            except Exception:
                if self._restarts == RESTARTS or not has_lost_child():
                    raise
                self._restarts += 1
                tear_down()
                self.run = None

    def _begin(self) -> None:
        if self.run is None:
            self.run = start_run(self._start, self._error_pipe)
            self._first = self.run.step if self._first < 0 else self._first
            self._known = max(0, self.run.step - self._first)


def has_lost_child() -> bool:
    """Whether wandb's own child has ended. wandb may notice a little earlier."""
    for _ in range(10):
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                return True
        except ChildProcessError:  # wandb has waited for it, or has not started it
            return True
        time.sleep(0.02)
    return False


def tell(run: Any, message: dict[str, Any]) -> None:
    if "figures" in message:
        run.log(message["figures"])
    elif "table" in message:
        log_table(run, **message["table"])
    else:
        finish(run, **message)


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Copies of stdin and stdout. The originals become /dev/null, so that wandb and its child cannot use them."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    return pipes


def start_run(start: dict[str, Any], error_pipe: BinaryIO) -> Any:
    """Start the W&B run; offline if online was asked for and fails."""
    sys.argv = start["argv"]  # W&B shows it as the run's command
    tempfile.tempdir = str(Path(start["folder"], "wandb").resolve())  # wandb copies WAVs; a killed process leaves them
    try:
        return init(start)
    except Exception as error:
        if start["mode"] != "online" or has_lost_child():
            raise
        tear_down()  # the failed start still holds the run's id
        run = init(start | {"mode": "offline"})
        report(error_pipe, error, start["folder"])
        return run


def init(start: dict[str, Any]) -> Any:
    import wandb

    folder = Path(start["folder"])
    return wandb.init(
        project=start["project"],
        entity=start["entity"],
        dir=str(folder),
        id=fixed_id(folder / "wandb" / f"{start['shard']}.id"),
        name=f"{folder.name} {start['shard']}",
        group=folder.name,
        job_type="shard",
        resume="allow" if start["mode"] == "online" else None,
        mode=start["mode"],
        config=start["config"],
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            init_timeout=START_S,
            finish_timeout=SEND_S,
            finish_timeout_raises=True,
            program=start["argv"][0],
            x_stats_pid=os.getppid(),  # W&B shows the CPU and memory of the job
        ),
    )


def fixed_id(path: Path) -> str:
    """The run's W&B id: drawn once, then kept in the file `path`."""
    if not path.exists():
        write_durably(path, lambda temporary: temporary.write_text(secrets.token_hex(8)))
    return path.read_text()


def finish(run: Any, summary: dict[str, Any], sample: list[tuple[str, str, str]]) -> None:
    import wandb

    run.summary.update(summary)
    if sample:
        rows = [(name, text, wandb.Audio(wav)) for name, text, wav in sample]
        log_table(run, "samples", ("id", "text", "audio"), rows)
    run.finish()
    wandb.teardown()  # run.finish() may return before the last figures are in the file


def log_table(run: Any, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    import wandb

    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    logged = ThreadPoolExecutor().submit(run.log, {name: table})
    if wait([logged], TABLE_S).not_done:
        raise TimeoutError(f"the server did not answer within {TABLE_S} s")
    logged.result()


def tear_down() -> None:
    """After an error: complete the run's file and end wandb's own child; errors are ignored."""
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def report(error_pipe: BinaryIO, error: BaseException, folder: str | None) -> None:
    with suppress(OSError):  # the job has died
        error_pipe.write((one_line(error) + (sync_hint(folder) if folder else "")).encode())


def one_line(error: BaseException) -> str:
    return shorten(str(error), 200).rstrip(" .:") or type(error).__name__


def sync_hint(folder: Path | str) -> str:
    """How to send figures that wandb has written to the run's folder but not sent."""
    return f"; send what is on disk: wandb sync --include-online {quote(str(folder))}/wandb/*run-*"


if __name__ == "__main__":
    main()
