"""The manifest: `metadata.parquet` and `failed.parquet`, made from the journals. Knows no engine and no text rule."""

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.plan import Planned
from pipeline.store import RunFolder, write_durably
from pipeline.store.edition import Edition
from pipeline.store.index import Entry, is_done, read_index
from pipeline.store.journal import decode

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"
GROUP = 1024  # rows in memory at a time

# name: (Arrow type as text, meaning). The README's table is made from it.
COLUMNS: dict[str, tuple[str, str]] = {
    "id": ("string", "book, chapter and index in the chapter"),
    "file_name": ("string", "the WAV, relative to this file"),
    "text": ("string", "the book's characters, white space collapsed"),
    "spoken_text": ("string", "exactly what the model was given"),
    "book": ("string", "the book's name"),
    "chapter": ("int32", "chapter number; 0 stands before the first heading"),
    "chapter_title": ("string", "the chapter's heading"),
    "index": ("int32", "position in the chapter, from 0"),
    "paragraph": ("int32", "paragraph in the chapter, from 0"),
    "char_start": ("int64", "offset of the first character in the book (a byte-order mark not counted)"),
    "char_end": ("int64", "offset behind the last character in the book"),
    "pause_after_s": ("float32", "silence to insert behind it when joining, in seconds"),
    "speaker": ("string", "the voice's name"),
    "voice_sha256": ("string", "hash of the reference recording; empty: the engine's own voice"),
    "language": ("string", "ISO 639-1 code"),
    "duration": ("float64", "seconds"),
    "num_samples": ("int64", "samples"),
    "sample_rate": ("int32", "Hz"),
    "audio_sha256": ("string", "hash of the WAV file's bytes"),
    "seed": ("int64", "seed of the attempt that was kept"),
    "params": ("string", "JSON: all options that change samples"),
    "engine": ("string", "chatterbox or espeak"),
    "model": ("string", "where the weights came from"),
    "model_revision": ("string", "commit, or hash of the files"),
    "precision": ("string", "number formats of the attempt that was kept"),
    "status": ("string", "ok or failed"),
    "error": ("string", "why it failed; empty when ok"),
    "attempts": (
        "list<struct<seed:int64,precision:string,reason:string>>",
        "every attempt; reason is empty for the one that was kept",
    ),
    "watermarked": ("bool", "a watermark was put on and found again"),
    "watermark_score": ("float32", "the detector's confidence in the written samples, 0 to 1"),
    "synthetic": ("bool", "always true"),
    "speech_tokens": ("list<int16>", "what S3Gen was given; null for engines without tokens"),
    "peak_db": ("float32", "peak, dBFS"),
    "rms_db": ("float32", "RMS, dBFS"),
    "silence_ratio": ("float32", "share of 10 ms frames that are silent"),
    "chars_per_second": ("float32", "characters of spoken text per second"),
    "created_at": ("timestamp", "UTC"),
    "key": ("string", "hash of all that changes samples"),
}


def schema() -> "pa.Schema":
    """The table's explicit `pa.schema`, with its version in the metadata."""
    import pyarrow as pa

    attempt = pa.struct([("seed", pa.int64()), ("precision", pa.string()), ("reason", pa.string())])
    special = {
        "attempts": pa.list_(attempt),
        "speech_tokens": pa.list_(pa.int16()),
        "created_at": pa.timestamp("us", tz="UTC"),
    }
    types = {name: special.get(name) or pa.type_for_alias(kind) for name, (kind, _) in COLUMNS.items()}
    return pa.schema(list(types.items()), metadata={"schema_version": SCHEMA_VERSION})


def merge(folder: RunFolder, edition: Edition) -> tuple[int, int]:
    """Write both tables from all journals in the order of the plan; returns how many are ok and how many failed.

    Rows are read where the index says, a group at a time: a long book takes no more memory than a short one.
    """
    with open(folder.root / "journal" / "merge.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        index = read_index(folder)
        ok, failed = standing(folder, edition, index)
        _write(folder.manifest, rows_of(edition, ok, index))
        if failed:
            _write(folder.failed, rows_of(edition, failed, index))
        else:
            folder.failed.unlink(missing_ok=True)
    return len(ok), len(failed)


def standing(folder: RunFolder, edition: Edition, index: Mapping[str, Entry]) -> tuple[list[Planned], list[Planned]]:
    """What of the plan is ok, and what has failed, under the keys it has now."""
    ok, failed = [], []
    for item in edition.planned:
        entry = index.get(item.utterance.id)
        if is_done(entry, item.key, folder):
            ok.append(item)
        elif entry is not None and entry.key == item.key and entry.status == "failed":
            failed.append(item)
    return ok, failed


def rows_of(edition: Edition, planned: Iterable[Planned], index: Mapping[str, Entry]) -> Iterator[dict[str, Any]]:
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
            row = decode(journals[place.journal].readline()) | asdict(item.utterance) | {"speaker": edition.speaker}
            row["created_at"] = datetime.fromisoformat(row["created_at"])
            yield {name: row[name] for name in COLUMNS}


def tables(rows: Iterable[dict[str, Any]]) -> Iterator["pa.Table"]:
    """`rows` as tables of `GROUP` rows."""
    import pyarrow as pa

    rows = iter(rows)
    while group := list(islice(rows, GROUP)):
        yield pa.Table.from_pylist(group, schema=schema())


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    import pyarrow.parquet as pq

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema(), compression="zstd") as writer:
            for table in tables(rows):
                writer.write_table(table)

    write_durably(path, write)
