"""Moves aside what an audit found, so that the next run renders what is missing. Knows no kind of damage."""

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pipeline.audit.finding import Finding
from pipeline.durable import fsync_folder, make_folder
from pipeline.store import RunFolder
from pipeline.store.finished import DamagedRun, open_run
from pipeline.store.manifest import merge


def fix(folder: RunFolder, findings: Iterable[Finding]) -> Path:
    """Move every file that a finding names aside, under its own name, and write the manifest anew; returns where to.

    `WorkError` if the disk refuses.
    """
    aside = folder.root / "aside" / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    with folder.writing():
        for path in {finding.path for finding in findings if finding.path and _is_in(finding.path, folder)}:
            target = aside / os.path.relpath(path, folder.root)
            make_folder(target.parent)
            os.replace(path, target)
            fsync_folder(target.parent)
            fsync_folder(path.parent)
        with suppress(DamagedRun):
            merge(folder, open_run(folder.root).snapshot)
    return aside


def _is_in(path: Path, folder: RunFolder) -> bool:
    """Whether there is something, and in the folder: a journal's row may name any path."""
    return os.path.lexists(path) and Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder.root))
