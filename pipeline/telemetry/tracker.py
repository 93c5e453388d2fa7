"""Weights & Biases at arm's length: it never asks, never fails or delays a run, keeps its files in the run's folder.

Knows nothing of wandb itself: that lives in a child process (`wandb_child`), because a process can be killed, whatever
it waits for, and what a process prints can be thrown away.
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
from pipeline.telemetry.wandb_child import kept, one_line

log = logging.getLogger(__name__)

# After SIGTERM a job has some 20 s (cluster schedulers, containers) for what is in flight, the manifest, and this.
FINISH_S = 10


class Tracker(Protocol):
    """Where figures go beside the log."""

    def utterance(self, row: dict[str, Any]) -> None:
        """A row of the manifest, durable by now."""

    def log(self, figures: dict[str, float]) -> None:
        """A window's figures."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A small table, of strings and numbers; None: not known."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The whole run's figures; nothing comes after."""


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
    """One W&B run for one shard of one folder, taken up again when the shard is. Its trouble is told once."""

    def __init__(self, options: WandbConfig, folder: Path, shard: str, config: dict[str, Any]) -> None:
        self._folder, self._wanted = folder, options.audio_samples
        self._sample: list[dict[str, Any]] = []
        self._seen = 0
        self._told = False
        self._child: subprocess.Popen[bytes] | None = None
        mode = options.mode if options.mode != "auto" else automatic_mode()
        run = {"folder": str(folder), "shard": shard, "config": config, "argv": sys.argv, "mode": mode}
        with self._safely():
            self._child = start_child(folder / "wandb")
            self._send(asdict(options) | run)

    def utterance(self, row: dict[str, Any]) -> None:
        """Keep a uniform sample of the rows for the table at the end (reservoir sampling, Vitter's algorithm R)."""
        if row["status"] != "ok":
            return
        self._seen += 1
        if len(self._sample) < self._wanted:
            self._sample.append(row)
        elif (slot := random.randrange(self._seen)) < self._wanted:
            self._sample[slot] = row

    def log(self, figures: dict[str, float]) -> None:
        self._tell({"figures": figures})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._tell({"table": {"name": name, "columns": columns, "rows": rows}})

    def finish(self, summary: dict[str, Any]) -> None:
        if self._child is None:
            return
        with self._safely():
            sample = [(row["id"], row["text"], str(self._folder / row["file_name"])) for row in self._sample]
            try:
                trouble, _ = self._child.communicate(encode({"summary": summary, "sample": sample}), FINISH_S)
            except subprocess.TimeoutExpired as late:
                self._warn(late.stdout)
                raise TimeoutError(f"it did not end within {FINISH_S} s{kept(self._folder)}") from None
            self._warn(trouble)
            if code := self._child.returncode:
                raise ChildProcessError(f"its process ended with code {code}")
        self._end()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._child is not None:
            with self._safely():
                self._warn(self._child.stdout.read())
                self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        """Without waiting: a child that has let the pipe fill up is stuck."""
        line = encode(message)
        try:
            if self._child.stdin.write(line) != len(line):
                raise TimeoutError(f"it does not keep up{kept(self._folder)}")
        except BrokenPipeError:
            raise ChildProcessError("its process has ended") from None

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """Speech matters more than figures: whatever is raised, this W&B run is over, and one line says so."""
        try:
            yield
        except Exception as error:
            self._warn(one_line(error).encode())
            self._end()

    def _warn(self, trouble: bytes | None) -> None:
        if trouble and not self._told:
            self._told = True
            log.warning("W&B failed, the job goes on: %s", trouble.decode())

    def _end(self) -> None:
        """Leave nothing that could hold up the job's exit; wandb's own child goes when its parent has gone."""
        if self._child is not None:
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):  # a disk that hangs holds even the killed
                self._child.wait(1)
        self._child = None


def open_tracker(options: WandbConfig, folder: Path, shard: str, config: dict[str, Any]) -> Tracker:
    """`shard` names the W&B run in the folder's group; `config` is what W&B shows of the options."""
    return NoTracker() if options.mode == "disabled" else Wandb(options, folder, shard, config)


def start_child(home: Path) -> subprocess.Popen[bytes]:
    """W&B's process; `home` takes all that wandb would put into the user's home."""
    home.mkdir(exist_ok=True)
    places = ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
    environment = dict.fromkeys(places, str(home.resolve())) | {
        "PYTHONPATH": os.pathsep.join(sys.path),  # the child finds what the job found
        "WANDB_ERROR_REPORTING": "false",  # W&B's telemetry of itself: its end waits for its server
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "pipeline.telemetry.wandb_child"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
        start_new_session=True,  # Ctrl-C is the job's
    )
    os.set_blocking(child.stdin.fileno(), False)
    os.set_blocking(child.stdout.fileno(), False)
    return child


def encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def automatic_mode() -> str:
    """What WANDB_MODE says; else online with a key, offline without."""
    return os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")


def has_key() -> bool:
    """Whether W&B has a key without asking: in the environment, or in the netrc file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, ValueError, netrc.NetrcParseError):
        return False
