"""Weights & Biases at arm's length: it never asks, never fails a run, and keeps its files inside the run's folder."""

import logging
import netrc
import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import WandbConfig
from pipeline.store import write_durably

log = logging.getLogger(__name__)

START_S = 20  # how long a server may take to answer before the run goes on offline


class Tracker(Protocol):
    """Where figures go beside the log."""

    def utterance(self, row: dict[str, Any]) -> None:
        """A row of the manifest, durable by now."""

    def log(self, figures: dict[str, float]) -> None:
        """A window's figures."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The whole run's figures; nothing comes after."""


class NoTracker:
    """`wandb.mode=disabled`."""

    def utterance(self, row: dict[str, Any]) -> None:
        pass

    def log(self, figures: dict[str, float]) -> None:
        pass

    def finish(self, summary: dict[str, Any]) -> None:
        pass


class Wandb:
    """One W&B run for one shard of one folder, taken up again when the shard is. The first trouble ends it."""

    def __init__(self, options: WandbConfig, folder: Path, shard: str, config: dict[str, Any]) -> None:
        self._folder, self._wanted = folder, options.audio_samples
        self._sample: list[dict[str, Any]] = []
        self._seen = 0
        self._run: Any = None
        mode = options.mode if options.mode != "auto" else automatic_mode()
        self._safely(lambda: self._start(mode, options, shard, config))
        if self._run is None and mode == "online":
            self._safely(lambda: self._start("offline", options, shard, config))  # for `wandb sync`, later

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
        if self._run is not None:
            self._safely(lambda: self._run.log(figures))

    def finish(self, summary: dict[str, Any]) -> None:
        if self._run is not None:
            self._safely(lambda: self._finish(summary))

    def _finish(self, summary: dict[str, Any]) -> None:
        import wandb

        table = wandb.Table(columns=["id", "text", "audio"])
        for row in self._sample:
            table.add_data(row["id"], row["text"], wandb.Audio(str(self._folder / row["file_name"])))
        self._run.log({"samples": table})
        self._run.summary.update(summary)
        self._run.finish()
        wandb.teardown()  # finish may return before the last figures are in the file

    def _safely(self, work: Callable[[], None]) -> None:
        """Speech matters more than figures: whatever is raised, this W&B run is over, and one line says so."""
        try:
            work()
        except Exception as error:
            self._run = None
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            log.warning("W&B failed, the job goes on: %s", line)

    def _start(self, mode: str, options: WandbConfig, shard: str, config: dict[str, Any]) -> None:
        home = self._folder / "wandb"
        home.mkdir(exist_ok=True)
        os.environ.setdefault("WANDB_SILENT", "true")
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ[name] = str(home.resolve())
        import wandb

        wandb.teardown()  # an online start that failed still holds the run's id
        self._run = wandb.init(
            project=options.project,
            entity=options.entity,
            dir=str(self._folder),
            id=fixed_id(home / f"{shard}.id"),
            name=f"{self._folder.name} {shard}",
            group=self._folder.name,
            job_type="shard",
            resume="allow" if mode == "online" else None,
            mode=mode,
            config=config,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, init_timeout=START_S),
        )


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


def fixed_id(path: Path) -> str:
    """The run's W&B id: drawn once, kept in the run's folder."""
    if not path.exists():
        write_durably(path, lambda temporary: temporary.write_text(secrets.token_hex(8)))
    return path.read_text()
