"""The run record: one JSON file a process, with all that is needed to tell how its speech was made."""

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
    """Written when the process starts to render and again when it ends."""

    folder: Path
    config: GenerateConfig
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def write(self, state: str, **facts: Any) -> None:
        """`state` is running, ended, stopped or failed; `facts` are anything JSON can hold."""
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
        except OSError as error:  # the disk is full: the journal is what matters, and says so itself
            log.warning("no run record: %s", error)


def versions() -> dict[str, str]:
    """Installed versions of the packages that shape the speech or the files."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
