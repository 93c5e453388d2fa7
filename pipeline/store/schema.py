"""Every column of the manifest, once: the row, the Parquet tables and docs/reference.md are made from this list.

A run folder outlives the version that wrote it. A journal line without one of these columns reads as that column's
default; a column that is not listed here is kept as it is. Knows nothing of where rows come from.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]  # column to value, ready for JSON

VERSION_KEY = b"schema_version"  # in the Parquet tables' metadata


@dataclass(frozen=True)
class Column:
    """`default`: value for lines that lack the column. `since`: first version that has it."""

    name: str
    type: str  # Arrow's, as text
    meaning: str
    default: Any = None
    since: int = 1


COLUMNS = (
    Column("id", "string", "book, chapter and index in the chapter"),
    Column("file_name", "string", "the WAV, relative to this file"),
    Column("text", "string", "the book's characters, white space collapsed", ""),
    Column("spoken_text", "string", "exactly what the model is given", ""),
    Column("book", "string", "the book's name", ""),
    Column("chapter", "int32", "chapter number; 0 stands before the first heading", 0),
    Column("chapter_title", "string", "the chapter's heading", ""),
    Column("index", "int32", "position in the chapter, from 0", 0),
    Column("paragraph", "int32", "paragraph in the chapter, from 0", 0),
    Column("char_start", "int64", "offset of the first character in the book (a byte-order mark not counted)", 0),
    Column("char_end", "int64", "offset behind the last character in the book", 0),
    Column("pause_after_s", "float32", "silence to insert behind it when joining, in seconds", 0.0),
    Column("speaker", "string", "the voice's name", ""),
    Column("voice_sha256", "string", "hash of the reference recording; empty: the engine's own voice", ""),
    Column("language", "string", "ISO 639-1 code", "en"),
    Column("duration", "float64", "seconds"),
    Column("num_samples", "int64", "samples"),
    Column("sample_rate", "int32", "Hz", 24_000),
    Column("audio_sha256", "string", "hash of the WAV file's bytes"),
    Column("seed", "int64", "seed of the attempt that was kept"),
    Column(
        "params", "string", "JSON: all options that change samples, with the sampling of the attempt that was kept", ""
    ),
    Column("engine", "string", "chatterbox or espeak", ""),
    Column("model", "string", "where the weights came from", ""),
    Column("model_revision", "string", "commit, or hash of the files", ""),
    Column("precision", "string", "number formats of the attempt that was kept", ""),
    Column("status", "string", "ok or failed"),
    Column("error", "string", "why it failed; empty when ok", ""),
    Column(
        "attempts",
        "list<struct<seed:int64,precision:string,sampling:string,reason:string>>",
        "every attempt; sampling is JSON, null before version 2; reason is empty for the attempt that was kept",
        (),
    ),
    Column("watermarked", "bool", "a watermark was put on and found again", False),
    Column("watermark_score", "float32", "the detector's confidence in the written samples, 0 to 1"),
    Column("synthetic", "bool", "always true", True),
    Column("speech_tokens", "list<int16>", "what S3Gen was given; null for engines without tokens"),
    Column("peak_db", "float32", "peak, dBFS"),
    Column("rms_db", "float32", "RMS, dBFS"),
    Column("silence_ratio", "float32", "share of 10 ms frames that are silent"),
    Column("chars_per_second", "float32", "characters of spoken text per second"),
    Column("created_at", "timestamp", "when the speech was made, UTC"),
    Column("taken_from", "string", "the id that the speech was first made for; empty: this one", "", since=2),
    Column("key", "string", "hash of all that changes samples"),
)
NAMES = tuple(column.name for column in COLUMNS)
VERSION = max(column.since for column in COLUMNS)  # written into each journal line and each Parquet table
# What a journal line holds beside columns.
BOOKKEEPING = frozenset({"generation", "version", "crc32"})


def make_row(**values: Any) -> Row:
    """A row with every column: `values`, and defaults for the others. ValueError for a column that does not exist."""
    if unknown := values.keys() - set(NAMES):
        raise ValueError(f"{min(unknown)} is not a column")
    return {column.name: values.get(column.name, column.default) for column in COLUMNS}


def complete_row(line: Mapping[str, Any]) -> Row:
    """A journal line of any version as a row of today's, with the columns that today's code does not know behind."""
    row = {column.name: line.get(column.name, column.default) for column in COLUMNS}
    return row | {name: line[name] for name in line if name not in row and name not in BOOKKEEPING}


def find_fault(line: Mapping[str, Any]) -> str:
    """The first column of a journal line whose value is not of the column's type; empty: there is none."""
    for column in COLUMNS:
        value = line.get(column.name)
        if value is not None and not _fits(value, column.type):
            return column.name
    return ""


def _fits(value: Any, type: str) -> bool:
    if type.startswith("int"):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2 ** (int(type[3:]) - 1)
    if type == "timestamp":
        try:
            return bool(datetime.fromisoformat(value))
        except (TypeError, ValueError):
            return False
    kinds = {"string": str, "bool": bool, "float32": int | float, "float64": int | float}
    return isinstance(value, kinds.get(type, list | tuple))


def arrow_schema(rows: Iterable[Row] = ()) -> "pa.Schema":
    """The tables' schema, with its version in the metadata; `rows` add the columns that today's code does not know."""
    import pyarrow as pa

    unknown: dict[str, pa.DataType] = {}
    for row in rows:
        for name in row.keys() - set(NAMES):
            unknown[name] = _widest(unknown.get(name), row[name])
    known = {column.name: arrow_type(column.type) for column in COLUMNS}
    metadata = {VERSION_KEY: str(VERSION)}
    return pa.schema([*known.items(), *sorted(unknown.items())], metadata=metadata)


@cache
def arrow_type(text: str) -> "pa.DataType":
    """The Arrow type that a column's `type` names."""
    import pyarrow as pa

    if text.startswith("list<"):
        return pa.list_(arrow_type(text[len("list<") : -1]))
    if text.startswith("struct<"):
        fields = (field.split(":") for field in text[len("struct<") : -1].split(","))
        return pa.struct([(name, arrow_type(kind)) for name, kind in fields])
    return pa.timestamp("us", tz="UTC") if text == "timestamp" else pa.type_for_alias(text)


def _widest(before: "pa.DataType | None", value: Any) -> "pa.DataType":
    """The type that holds a JSON value beside those of before; mixed kinds, lists and objects become text."""
    import pyarrow as pa

    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), type(None): pa.null()}
    found = kinds.get(type(value), pa.string())
    if isinstance(value, int) and abs(value) >= 2**63:
        found = pa.string()
    if before is None or before == found or pa.types.is_null(before):
        return found
    if pa.types.is_null(found):
        return before
    return pa.float64() if {before, found} == {pa.int64(), pa.float64()} else pa.string()


def choose_schema(found: "pa.Schema", today: "pa.Schema") -> "pa.Schema":
    """The schema to compare a table with: its own if an older version wrote it completely, else today's."""
    version = int((found.metadata or {}).get(VERSION_KEY, VERSION))
    had = [column.name for column in COLUMNS if column.since <= version]
    return found if version < VERSION and set(had) <= set(found.names) else today


def fit_row(row: Row, schema: "pa.Schema") -> Row:
    """`row` as Arrow takes it: a value for each column of `schema`; objects in unknown columns become JSON text."""
    import pyarrow as pa

    fitted = {}
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = row.get(name)
        if pa.types.is_timestamp(kind) and isinstance(value, str):
            value = datetime.fromisoformat(value)
        if name not in NAMES and pa.types.is_string(kind) and value is not None and not isinstance(value, str):
            value = json.dumps(value)
        fitted[name] = value
    return fitted
