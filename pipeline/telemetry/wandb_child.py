"""W&B's own process: the only place that imports wandb. Started and, if need be, killed by `tracker.Wandb`.

On stdin a line of JSON for the start, for each window or table, and for the end; on stdout nothing but trouble, in
plain words. Whatever wandb waits for, prints, or leaves behind in threads, exit hooks and its own child stays in here.
"""

import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from shlex import quote
from textwrap import shorten
from typing import Any, BinaryIO

from pipeline.durable import write_durably

# The job waits `tracker.FINISH_S` at its end. Unless the machine is overloaded that is enough for a server that has
# been silent from the start, in a job of no time at all, and for one that falls silent in the middle.
START_S = 5  # how long it may take to answer before the run goes on offline
TABLE_S = 3  # how long it may take to say who we are and whether there is such a table: wandb asks, and waits
SEND_S = 5  # how long it may take to get the rest; then wandb completes its file, for `wandb sync`


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # schedulers send it to all of a job's processes; the job decides
    lines, answer = own_pipes()
    start = json.loads(next(lines))
    run = None
    try:
        run = start_run(start, answer)
        for line in lines:
            message = json.loads(line)
            if "figures" in message:
                run.log(message["figures"])
            elif "table" in message:
                log_table(run, **message["table"])
            else:
                return finish(run, **message)
    except (Exception, SystemExit) as error:  # wandb.teardown() exits when wandb's own child has failed
        tell(answer, error, start["folder"] if run else None)
        tear_down()
    os._exit(1)  # past exit hooks and stuck threads; without trouble, too, if the lines ended because the job died


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout, out of reach of wandb and its child, whose own stdin and stdout become nothing."""
    pipes = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return pipes


def start_run(start: dict[str, Any], answer: BinaryIO) -> Any:
    """The W&B run; offline if it was to be online and cannot be."""
    sys.argv = start["argv"]  # W&B shows a run's command
    tempfile.tempdir = str(Path(start["folder"], "wandb").resolve())  # a killed process leaves its copies of WAVs
    try:
        return init(start)
    except Exception as error:
        if start["mode"] != "online":
            raise
        tear_down()  # the failed start still holds the run's id
        run = init(start | {"mode": "offline"})
        tell(answer, error, start["folder"])
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
            x_stats_pid=os.getppid(),  # what W&B shows of CPU and memory is the job's
        ),
    )


def fixed_id(path: Path) -> str:
    """The run's W&B id: drawn once, kept in the run's folder."""
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
    wandb.teardown()  # finish may return before the last figures are in the file


def log_table(run: Any, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    import wandb

    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    logged = ThreadPoolExecutor().submit(run.log, {name: table})
    if wait([logged], TABLE_S).not_done:
        raise TimeoutError(f"the server did not answer within {TABLE_S} s")
    logged.result()


def tear_down() -> None:
    """After trouble: complete the run's file and end wandb's own child, come what may."""
    with suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def tell(answer: BinaryIO, error: BaseException, folder: str | None) -> None:
    with suppress(OSError):  # the job has died
        answer.write((one_line(error) + (kept(folder) if folder else "")).encode())


def one_line(error: BaseException) -> str:
    return shorten(str(error), 200).rstrip(" .:") or type(error).__name__


def kept(folder: Path | str) -> str:
    """What to do, after a trouble that leaves something in the run's folder."""
    return f"; send what is on disk: wandb sync --include-online {quote(str(folder))}/wandb/*run-*"


if __name__ == "__main__":
    main()
