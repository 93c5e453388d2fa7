"""Weights & Biases, isolated: it never prompts, fails or delays a run, and keeps its files in the run's folder.

Knows nothing of wandb itself. wandb runs in a child process (`wandb_child`), because a process can be killed whatever
it waits for, and its output can be discarded.
"""

import json
import logging
import netrc
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import WandbConfig
from pipeline.process import signals_held
from pipeline.telemetry.wandb_child import one_line, sync_hint

log = logging.getLogger(__name__)

# Cluster schedulers and containers give a job some 20 s after SIGTERM: for work in flight, the manifest, and W&B.
FINISH_S = 10


class Tracker(Protocol):
    """Receives figures, in addition to the log."""

    def utterance(self, row: dict[str, Any]) -> None:
        """A durable row of the manifest."""

    def log(self, figures: dict[str, float]) -> None:
        """A window's figures."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A small table of strings and numbers; None: unknown."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The whole run's figures; the last call."""


class NoTracker:
    """`wandb.mode=disabled`."""

    def utterance(self, row: dict[str, Any]) -> None:
        pass

    def log(self, figures: dict[str, float]) -> None:
        pass

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        pass

    def finish(self, summary: dict[str, Any]) -> None:
        pass


class Wandb:
    """One W&B run for each shard of a folder; a resumed shard resumes it. Only its first error is logged."""

    def __init__(self, options: WandbConfig, folder: Path, shard: str, config: dict[str, Any]) -> None:
        self._folder, self._sample_size = folder, options.audio_samples
        self._sample: list[dict[str, Any]] = []
        self._seen = 0
        self._warned = False
        self._child: subprocess.Popen[bytes] | None = None
        mode = options.mode if options.mode != "auto" else automatic_mode()
        run = {"folder": str(folder), "shard": shard, "config": config, "argv": sys.argv, "mode": mode}
        with self._safely():
            self._child = start_child(folder / "wandb")
            self._send(asdict(options) | run)

    def utterance(self, row: dict[str, Any]) -> None:
        """Keep a uniform sample of the good rows for the table at the end: reservoir sampling, Vitter's algorithm R."""
        if row["status"] != "ok":
            return
        self._seen += 1
        if len(self._sample) < self._sample_size:
            self._sample.append(row)
        elif (slot := random.randrange(self._seen)) < self._sample_size:
            self._sample[slot] = row

    def log(self, figures: dict[str, float]) -> None:
        self._try_send({"figures": figures})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._try_send({"table": {"name": name, "columns": columns, "rows": rows}})

    def finish(self, summary: dict[str, Any]) -> None:
        if self._child is None:
            return
        with self._safely():
            sample = [(row["id"], row["text"], str(self._folder / row["file_name"])) for row in self._sample]
            try:
                problem, _ = self._child.communicate(encode({"summary": summary, "sample": sample}), FINISH_S)
            except subprocess.TimeoutExpired as late:
                self._warn(late.stdout)
                raise TimeoutError(f"it did not end within {FINISH_S} s{sync_hint(self._folder)}") from None
            self._warn(problem)
            if code := self._child.returncode:
                raise ChildProcessError(f"its process ended with code {code}")
        self._end()

    def _try_send(self, message: dict[str, Any]) -> None:
        if self._child is not None:
            with self._safely():
                self._warn(self._child.stdout.read())
                self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        """Write without blocking: if the pipe is full, the child is stuck."""
        line = encode(message)
        try:
            if self._child.stdin.write(line) != len(line):
                raise TimeoutError(f"it does not keep up{sync_hint(self._folder)}")
        except BrokenPipeError:
            raise ChildProcessError("its process has ended") from None

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """On any error, end the W&B run and log one line: speech matters more than figures."""
        try:
            yield
        except Exception as error:
            self._warn(one_line(error).encode())
            self._end()

    def _warn(self, problem: bytes | None) -> None:
        if problem and not self._warned:
            self._warned = True
            log.warning("W&B failed, the job goes on: %s", problem.decode())

    def _end(self) -> None:
        """Kill the child, so that it cannot delay the job's exit. wandb's own child exits when its parent has."""
        if self._child is not None:
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):  # a killed process may still wait for a disk that hangs
                self._child.wait(1)
        self._child = None


def open_tracker(options: WandbConfig, folder: Path, shard: str, config: dict[str, Any]) -> Tracker:
    """`shard` names the W&B run in the folder's group; `config`: the options to show in W&B."""
    return NoTracker() if options.mode == "disabled" else Wandb(options, folder, shard, config)


def start_child(home: Path) -> subprocess.Popen[bytes]:
    """Start W&B's process. `home`: the folder for all files that wandb would write to the user's home."""
    home.mkdir(exist_ok=True)
    variables = ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
    environment = dict.fromkeys(variables, str(home.resolve())) | {
        "PYTHONPATH": os.pathsep.join(sys.path),  # the child imports from the same folders as the job
        "WANDB_ERROR_REPORTING": "false",  # wandb's own error reporting waits for its server at exit
    }
    with signals_held():  # for good: the child and its own children need none
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.telemetry.wandb_child"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,  # Ctrl-C must reach the job only
        )
    os.set_blocking(child.stdin.fileno(), False)
    os.set_blocking(child.stdout.fileno(), False)
    return child


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def automatic_mode() -> str:
    """The value of WANDB_MODE; without it, online if there is a key, else offline."""
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def has_key() -> bool:
    """Whether a W&B key is in the environment or in the netrc file, where `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, ValueError, netrc.NetrcParseError):
        return False
