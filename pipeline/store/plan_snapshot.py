"""The plan snapshot: a book's text and plan as last rendered, kept in the folder. Knows nothing of speech or journals.

`book.txt` is what offsets count in, `plan.parquet` what should be there: the manifest is made by it, and the audit
needs nothing else to tell what is missing.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.data import Unspoken, Utterance
from pipeline.durable import write_durably
from pipeline.errors import UserError
from pipeline.plan import Planned
from pipeline.store import RunFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanSnapshot:
    """A book as one configuration speaks it."""

    source: str  # the book's path, as it was when it was read
    text: str
    unspoken: tuple[Unspoken, ...]
    planned: Sequence[Planned]  # the whole book, in reading order
    speaker: str
    params: dict[str, Any]  # what enters every key

    @cached_property
    def digest(self) -> str:
        """Equal for two processes that agree on every row of the manifest and on every sample."""
        facts = (self.text, self.unspoken, tuple(self.planned), self.speaker)
        return hashlib.sha256(repr(facts).encode(errors="surrogatepass")).hexdigest()


class BrokenSnapshot(Exception):
    """A file of the snapshot is not there, or not as it was written."""

    def __init__(self, path: Path, why: Exception) -> None:
        self.path = path
        self.why = "there is none" if isinstance(why, FileNotFoundError) else (str(why).splitlines() or [repr(why)])[0]
        super().__init__(f"{path} cannot be read: {self.why}")


def write_snapshot(folder: RunFolder, snapshot: PlanSnapshot) -> None:
    """Keep `snapshot` in place of the one before; `UserError` if that was of another book."""
    before = read_snapshot(folder)
    if before is None or before.digest != snapshot.digest:
        if moved := refuse_another_book(folder, before, snapshot):
            log.info(moved)
        write_durably(folder.book, lambda temporary: temporary.write_bytes(snapshot.text.encode()))
        write_durably(folder.plan, lambda temporary: _write_plan(temporary, snapshot))


def read_snapshot(folder: RunFolder) -> PlanSnapshot | None:
    """The snapshot in `folder`; None if there is none, or not a whole one."""
    try:
        return load_snapshot(folder)
    except BrokenSnapshot as error:
        if error.path.exists():
            log.warning("%s", error)
        return None


def load_snapshot(folder: RunFolder) -> PlanSnapshot:
    """The snapshot in `folder`; `BrokenSnapshot` names the file that is not there, or not as it was written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder.plan)
        facts, rows = json.loads(table.schema.metadata[b"edition"]), table.to_pylist()
        if facts.pop("sha256", None) not in (None, _hash(facts, rows)):  # earlier versions did not write it
            raise ValueError("it is not what was written")
        text_sha256 = facts.pop("text_sha256")
        facts["unspoken"] = tuple(Unspoken(**_known(Unspoken, span)) for span in facts["unspoken"])
        if not isinstance(facts["params"], dict):
            raise ValueError("its params are no object")
        planned = [_planned(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise BrokenSnapshot(folder.plan, error) from error
    try:
        data = folder.book.read_bytes()
        if hashlib.sha256(data).hexdigest() != text_sha256:
            raise ValueError("it is not the text that the plan is of")
        return PlanSnapshot(text=data.decode(), planned=planned, **_known(PlanSnapshot, facts))
    except (OSError, ValueError, TypeError) as error:
        raise BrokenSnapshot(folder.book, error) from error


def refuse_another_book(folder: RunFolder, before: PlanSnapshot | None, snapshot: PlanSnapshot) -> str:
    """What to say of a book that takes over another one's folder; empty: it is the same file.

    `UserError` if less than half of its text stays: two books of the same name would overwrite each other.
    """
    if before is None or before.source == snapshot.source:
        return ""
    then, now = (Counter(item.utterance.spoken_text for item in one.planned) for one in (before, snapshot))
    kept, total = (then & now).total(), len(before.planned)  # under whatever ids: an edit may have moved them
    share = f"{kept} of {total} utterances ({kept / max(total, 1):.0%})"
    if kept * 2 < total:
        raise UserError(
            f"out={folder.root} holds the speech of {before.source}, of which only {share} are in {snapshot.source}; "
            "choose another out="
        )
    if before.text == snapshot.text:
        return f"{before.source} has become {snapshot.source}, with the same text"
    return f"{snapshot.source} takes the place of {before.source} in {folder.root}: {share} keep their text"


def _write_plan(path: Path, snapshot: PlanSnapshot) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(item.utterance) | dict(key=item.key, seed=item.seed, predicted_s=item.predicted_s)
            for item in snapshot.planned]  # fmt: skip
    facts = dict(
        source=snapshot.source,
        text_sha256=hashlib.sha256(snapshot.text.encode()).hexdigest(),
        unspoken=[asdict(span) for span in snapshot.unspoken],
        speaker=snapshot.speaker,
        params=snapshot.params,
    )
    table = pa.Table.from_pylist(rows)
    facts["sha256"] = _hash(facts, table.to_pylist())
    pq.write_table(table.replace_schema_metadata({"edition": json.dumps(facts)}), path, compression="zstd")


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _planned(row: dict[str, Any]) -> Planned:
    return Planned(Utterance(**_known(Utterance, row)), **_known(Planned, row))


def _known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """What of `values` a dataclass has fields for: another version may have written others."""
    return {field.name: values[field.name] for field in fields(cls) if field.name in values}
