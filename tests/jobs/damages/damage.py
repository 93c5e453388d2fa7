"""What a damage is, and the tools to do one. Not a test; used by the rooms beside it.

The folder is that of a short book of which one utterance failed, rendered by one process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.audit.finding import Kind
from pipeline.store.journal import decode, encode

from ..test_generate import OUT

JOURNAL = OUT / "journal" / "0-of-1.jsonl"
METADATA, FAILED, PLAN, BOOK = (
    OUT / name for name in ("metadata.parquet", "failed.parquet", "plan.parquet", "book.txt")
)
AGAIN, FIX = "the same command", "an audit with fix=true, and the same command"


@dataclass(frozen=True)
class Damage:
    """`do` damages the folder and returns the things that the audit has to name, all of them of `kind`."""

    do: Callable[[], list[str]]
    kind: Kind
    healed: str = AGAIN


DAMAGES: list[Damage] = []


def damage(kind: Kind, healed: str = AGAIN):
    """Registers a function of this module that damages the folder."""

    def register(do: Callable[[], list[str]]) -> Callable[[], list[str]]:
        DAMAGES.append(Damage(do, kind, healed))
        return do

    return register


def wavs() -> list[Path]:
    return sorted(OUT.glob("wavs/001/*.wav"))


def name(path: Path) -> str:
    return path.relative_to(OUT).as_posix()


def lines() -> list[bytes]:
    return JOURNAL.read_bytes().splitlines(keepends=True)


def line_of(wav: Path) -> int:
    """The number of the line with the row of a WAV."""
    (number,) = [n for n, line in enumerate(lines()) if decode(line)["file_name"] == name(wav)]
    return number


def change_line(number: int, change: Callable[[bytes], bytes]) -> None:
    there = lines()
    there[number] = change(there[number])
    JOURNAL.write_bytes(b"".join(there))


def change_row(wav: Path, **values) -> None:
    """Checksum and all."""
    change_line(line_of(wav), lambda line: encode(decode(line) | values))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def cut(path: Path, to: int | None = None) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 if to is None else to])


def change_value(path: Path, column: str, change: Callable) -> None:
    """Of the table's first row."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    field = table.schema.field(column)
    changed = pa.array([change(values[0]), *values[1:]], field.type)
    pq.write_table(table.set_column(table.schema.get_field_index(column), field, changed), path)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")
