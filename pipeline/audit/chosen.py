"""What the runs of a folder were asked to render: the measure of what is missing. Knows nothing of what is there.

Run records and the lock's file keep `chapters` and `limit`. Shards only divide the work: one that never ran is missing.
Runs of the plan as it is now count, and those of versions that did not record their plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.audit.finding import Finding, Kind
from pipeline.errors import UserError
from pipeline.plan import choose
from pipeline.store import RunFolder
from pipeline.store.finished import FinishedRun, read_record
from pipeline.store.folder_lock import read_cut


@dataclass(frozen=True)
class Asked:
    """What a run record says that its process was to do."""

    plan: str | None  # digest; None: of a version that did not record it
    chapters: str | None
    limit: int | None
    journal: Path


def read_asked(folder: RunFolder) -> tuple[list[Asked], list[Finding]]:
    """What each run record says, and those that cannot be read."""
    asked, broken = [], []
    for path in sorted((folder.root / "runs").glob("*.json")):
        try:
            asked.append(_asked(read_record(path), folder))
        except (UserError, LookupError, TypeError) as error:
            name = path.relative_to(folder.root).as_posix()
            broken.append(Finding(Kind.RECORD, name, f"is no run record ({error})", path))
    return asked, broken


def _asked(record: Mapping[str, Any], folder: RunFolder) -> Asked:
    config = record["config"]
    chapters, limit, plan = config["chapters"], config["limit"], record.get("plan")
    if not isinstance(chapters, str | None) or not isinstance(limit, int | None):
        raise TypeError(f"chapters={chapters}, limit={limit}")
    return Asked(plan, chapters, limit, folder.journal(int(config["shard"]), int(config["num_shards"])))


def find_chosen(run: FinishedRun, asked: Iterable[Asked], whole: bool) -> set[str]:
    """Ids of what any run was asked to render; of the whole book if `whole`, or if nothing says what was chosen."""
    planned, digest = run.snapshot.planned, run.snapshot.digest
    choices = {(one.chapters, one.limit) for one in asked if one.plan in (None, digest)}
    if last := read_cut(run.folder, digest):
        choices.add(last)
    try:
        chosen = [choose(planned, *choice) for choice in choices]
    except UserError:  # an earlier edition had other chapters
        chosen = []
    items = planned if whole or not chosen else (item for part in chosen for item in part)
    return {item.utterance.id for item in items}
