"""The one door to a finished run: its plan, its rows by status, its WAVs, its configuration.

Audits, exports and benchmarks read a run through `open_run`, whatever version wrote it. Knows nothing of how speech is
made or checked.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import ENGINE_CONFIGS, GenerateConfig
from pipeline.errors import UserError
from pipeline.option import build_from_dict, validate
from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.index import Index, read_index
from pipeline.store.manifest import rows_of, status_by_plan
from pipeline.store.plan_snapshot import BrokenSnapshot, PlanSnapshot, load_snapshot
from pipeline.store.schema import Row

log = logging.getLogger(__name__)


class DamagedRun(UserError):
    """A folder that a run was rendered into, but whose plan or text cannot be read."""

    def __init__(self, run: str | Path, cause: BrokenSnapshot) -> None:
        super().__init__(
            f"run={run} has no plan that can be read ({cause}); run jobs.generate into it, then this again"
        )
        self.cause = cause


@dataclass(frozen=True)
class FinishedRun:
    """A run as read at one moment; planned utterances may be missing."""

    folder: RunFolder
    snapshot: PlanSnapshot
    index: Index

    @cached_property
    def by_status(self) -> dict[str, list[Planned]]:
        """`ok` and `failed`, each in the order of reading. What is in neither is not rendered."""
        ok, failed = status_by_plan(self.folder, self.snapshot, self.index)
        return dict(ok=ok, failed=failed)

    def rows(self, status: str = "ok") -> Iterator[Row]:
        """The manifest's rows of that status, in the order of reading."""
        return rows_of(self.snapshot, self.by_status[status], self.index)

    def wav(self, row: Row) -> Path:
        """The WAV of a row that is ok."""
        return self.folder.root / row["file_name"]

    @cached_property
    def config(self) -> GenerateConfig:
        """The options of the newest run record that can be read; `UserError` if there is none."""
        return read_config(self.folder.root)


def open_run(path: str | Path) -> FinishedRun:
    """`UserError` if there is no run in the folder, `DamagedRun` if its plan cannot be read."""
    folder = RunFolder(Path(path))
    if not folder.has_run():
        raise UserError(f"run={path}: no run in it; give the folder that jobs.generate wrote")
    try:
        return FinishedRun(folder, load_snapshot(folder), read_index(folder))
    except BrokenSnapshot as error:
        raise DamagedRun(path, error) from error
    except OSError as error:
        raise UserError(f"run={path} cannot be read ({error}); check the disk and the permissions") from error


def read_config(root: Path) -> GenerateConfig:
    """The options of the newest run record in a folder that can be read; `UserError` if there is none."""
    for record in read_records(root):
        try:
            return config_from_record(record.get("config"))
        except UserError as error:
            log.warning("a record of %s is passed over: %s", root, error)
    raise UserError(f"run={root} has no run record that can be read; give a folder that jobs.generate wrote")


def config_from_record(values: Any) -> GenerateConfig:
    """The options that a run record keeps, of any version; `UserError` for what are none.

    An option that the record lacks has its default. One that no longer exists changes nothing, and is logged.
    """
    try:
        engine = ENGINE_CONFIGS[values["engine"]["name"]]
        config = build_from_dict(GenerateConfig, values, dict(engine=engine))
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"not the options of a job ({error!r})") from error
    validate(config)
    return config


def read_records(root: Path) -> Iterator[Mapping[str, Any]]:
    """The run records of a folder, the newest first; one that is no JSON object is passed over, with a warning."""
    try:
        names = os.listdir(root / "runs")
    except OSError as error:
        log.warning("no run record: %s", error)
        return
    for path in (root / "runs" / name for name in sorted(names, reverse=True) if name.endswith(".json")):
        try:
            yield read_record(path)
        except UserError as error:
            log.warning("%s cannot be read: %s", path, error)


def read_record(path: Path) -> Mapping[str, Any]:
    """A run record; `UserError` for what is no JSON object."""
    try:
        return dict(json.loads(path.read_text()).items())
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(str(error)) from error
