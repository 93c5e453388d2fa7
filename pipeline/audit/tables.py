"""Both tables against journal and plan, row by row, in the columns of the version that wrote them.

A table answers for its own rows. Where an utterance is damaged itself, its row may be there or not. Knows no WAV.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from pipeline.audit.finding import Finding, Kind
from pipeline.store.finished import FinishedRun
from pipeline.store.manifest import GROUP, rows_of, schema_of, tables
from pipeline.store.schema import choose_schema


def check_tables(run: FinishedRun, told: Collection[str]) -> Iterator[Finding]:
    """`told`: ids of utterances against which something else was found."""
    for path, status in ((run.folder.manifest, "ok"), (run.folder.failed, "failed")):
        if wrong := _compare(run, path, status, told):
            yield Finding(Kind.TABLE, path.name, wrong, None if path.is_file() else path)


def _compare(run: FinishedRun, path: Path, status: str, told: Collection[str]) -> str:
    """What is wrong with a table; empty: nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = [item for item in run.by_status[status] if item.utterance.id not in told]
    if not os.path.lexists(path):
        return "is gone" if wanted else ""
    try:
        file = pq.ParquetFile(path)
        everything = [item for items in run.by_status.values() for item in items]
        schema = choose_schema(file.schema_arrow, schema_of(run.snapshot, everything, run.index))
        if lacking := [name for name in schema.names if name not in file.schema_arrow.names]:
            return f"lacks the column(s) {', '.join(lacking)}"
        ids = [id for id in file.read(["id"])["id"].to_pylist() if id not in told]
        if wrong := _compare_ids(ids, [item.utterance.id for item in wanted]):
            return wrong
        rows = rows_of(run.snapshot, wanted, run.index)
        for batch in file.iter_batches(GROUP):
            there = pa.Table.from_batches([batch]).select(schema.names)
            there = there.filter(pc.invert(pc.is_in(there["id"], pa.array(told, pa.string()))))
            for right in tables(islice(rows, there.num_rows), schema):
                if not there.equals(right):
                    return f"differs{_first(there, right)}"
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"cannot be read ({(str(error).splitlines() or [repr(error)])[0]})"
    return ""


def _compare_ids(there: Sequence[str], wanted: Sequence[str]) -> str:
    if there == wanted:
        return ""
    if lacking := sorted(set(wanted) - set(there)):
        return f"lacks {len(lacking)} row(s), from {lacking[0]} on"
    if len(there) > len(wanted):
        (first, *_) = [id for id, right in zip_longest(there, wanted) if id != right]
        return f"has {len(there) - len(wanted)} row(s) too many, from {first} on"
    return "has its rows in another order"


def _first(there: Any, right: Any) -> str:
    """The first row that differs, and in which columns."""
    for one, other in zip(there.to_pylist(), right.to_pylist(), strict=True):
        if one != other:
            return f", from {other['id']} on ({', '.join(name for name in other if one[name] != other[name])})"
    return " in the types of its columns"
