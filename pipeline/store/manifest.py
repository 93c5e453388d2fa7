"""The manifest: `metadata.parquet` and `failed.parquet`, made from the journals. Knows no engine and no text rule."""

import fcntl
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.plan import Planned
from pipeline.store import RunFolder, write_durably
from pipeline.store.journal import read_rows
from pipeline.store.wav import HEADER_BYTES

SCHEMA_VERSION = "1"

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


def schema() -> Any:
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


def latest(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """The last row of each utterance: it tells what the utterance's WAV is now."""
    return {row["id"]: row for row in read_rows(folder.root / "journal")}


def is_done(row: Mapping[str, Any] | None, key: str, folder: RunFolder) -> bool:
    """An utterance is done when its last row says ok, for the same key, and its WAV is there in full length."""
    if row is None or row["status"] != "ok" or row["key"] != key:
        return False
    path = folder.root / row["file_name"]
    return path.is_file() and path.stat().st_size == HEADER_BYTES + 2 * row["num_samples"]


def merge(folder: RunFolder, planned: Iterable[Planned], speaker: str) -> tuple[int, int]:
    """Write both tables from all journals in the order of `planned`; returns how many are ok and how many failed.

    What a row says of audio comes from the journal; what it says of the book comes from the plan, where offsets,
    titles and pauses may have changed since.
    """
    with open(folder.root / "journal" / "merge.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = latest(folder)
        ok, failed = [], []
        for item in planned:
            row = rows.get(item.utterance.id)
            if row is None or row["key"] != item.key:
                continue
            told = row | asdict(item.utterance) | {"speaker": speaker}
            if is_done(row, item.key, folder):
                ok.append(told)
            elif row["status"] == "failed":
                failed.append(told)
        _write(folder.manifest, ok)
        if failed:
            _write(folder.failed, failed)
        else:
            folder.failed.unlink(missing_ok=True)
    return len(ok), len(failed)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from datetime import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [row.get(name) for row in rows] for name in COLUMNS}
    columns["created_at"] = [at and datetime.fromisoformat(at) for at in columns["created_at"]]
    table = pa.table(columns, schema=schema())
    write_durably(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
