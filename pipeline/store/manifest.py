"""The manifest: `metadata.parquet` and `failed.parquet`, made from the journals. Knows no engine and no text rule."""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.durable import write_durably
from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.index import Entry, Index, is_done, read_index
from pipeline.store.journal import decode
from pipeline.store.plan_snapshot import PlanSnapshot
from pipeline.store.schema import Row, arrow_schema, complete_row, fit_row

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 1024  # rows in memory at a time


def merge(folder: RunFolder, snapshot: PlanSnapshot) -> tuple[int, int]:
    """Write both tables from all journals in the order of the plan; returns how many are ok and how many failed.

    Rows are read where the index says, a group at a time: a long book takes no more memory than a short one.
    """
    with open(folder.root / "journal" / "merge.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = read_index(folder)
        ok, failed = status_by_plan(folder, snapshot, index)
        schema = schema_of(snapshot, [*ok, *failed], index)
        _write(folder.manifest, rows_of(snapshot, ok, index), schema)
        if failed:
            _write(folder.failed, rows_of(snapshot, failed, index), schema)
        else:
            folder.failed.unlink(missing_ok=True)
    return len(ok), len(failed)


def status_by_plan(
    folder: RunFolder, snapshot: PlanSnapshot, index: Mapping[str, Entry]
) -> tuple[list[Planned], list[Planned]]:
    """What of the plan is ok, and what has failed, under the keys it has now."""
    ok, failed = [], []
    for item in snapshot.planned:
        entry = index.get(item.utterance.id)
        if is_done(entry, item.key, folder):
            ok.append(item)
        elif entry is not None and entry.key == item.key and entry.status == "failed":
            failed.append(item)
    return ok, failed


def schema_of(snapshot: PlanSnapshot, planned: Iterable[Planned], index: Index) -> "pa.Schema":
    """The tables' schema: today's columns, and those of these rows that today's code does not know."""
    return arrow_schema(rows_of(snapshot, planned, index) if index.unknown_columns else ())


def rows_of(snapshot: PlanSnapshot, planned: Iterable[Planned], index: Mapping[str, Entry]) -> Iterator[Row]:
    """Rows of the manifest, with a value for each column.

    What a row says of audio comes from the journal; what it says of the book comes from the plan, where offsets,
    titles and pauses may have changed since.
    """
    with ExitStack() as stack:
        journals: dict[Path, BinaryIO] = {}
        for item in planned:
            place = index[item.utterance.id].place
            if place.journal not in journals:
                journals[place.journal] = stack.enter_context(open(place.journal, "rb"))
            journals[place.journal].seek(place.offset)
            row = complete_row(decode(journals[place.journal].readline()))
            row |= asdict(item.utterance) | dict(speaker=snapshot.speaker)
            yield row


def tables(rows: Iterable[Row], schema: "pa.Schema") -> Iterator["pa.Table"]:
    """`rows` as tables of `GROUP` rows."""
    import pyarrow as pa

    fitted = (fit_row(row, schema) for row in rows)
    while group := list(islice(fitted, GROUP)):
        yield pa.Table.from_pylist(group, schema=schema)


def _write(path: Path, rows: Iterable[Row], schema: "pa.Schema") -> None:
    import pyarrow.parquet as pq

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in tables(rows, schema):
                writer.write_table(table)

    write_durably(path, write)
