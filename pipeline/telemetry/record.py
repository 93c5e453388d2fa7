"""The run record: one JSON file for each process, with options, versions and hardware."""

import importlib.metadata
import json
import logging
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.durable import write_durably

log = logging.getLogger(__name__)

PACKAGES = ("chatterbox-batch", "chatterbox-tts", "torch", "transformers", "numpy", "resemble-perth", "espeakng-loader",
            "hydra-core", "nltk", "pyarrow", "soundfile", "wandb")  # fmt: skip


@dataclass
class RunRecord:
    """The record of one process; written at its start and again at its end."""

    folder: Path
    config: GenerateConfig
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def write(self, state: str, **facts: Any) -> None:
        """Write `runs/<start>-<shard>.json`. `state`: running, ended, stopped or failed; `facts`: any JSON values."""
        path = self.folder / "runs" / f"{self.started:%Y%m%dT%H%M%S.%fZ}-{self.config.shard}.json"
        record = dict(
            state=state,
            started=self.started.isoformat(),
            written=datetime.now(UTC).isoformat(),
            command=sys.argv,
            config=asdict(self.config),
            versions=versions(),
            hardware=dict(platform=platform.platform(), python=platform.python_version(), cpus=os.cpu_count()),
            **facts,
        )
        text = json.dumps(record, indent=1)
        try:
            write_durably(path, lambda temporary: temporary.write_text(text))
        except OSError as error:  # as on a full disk: the journal matters more, and raises its own error
            log.warning("no run record: %s", error)


def versions() -> dict[str, str]:
    """Installed versions of the packages that affect the speech or the files."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
