"""The journal: one JSON row per finished utterance, appended and fsynced. Knows nothing of what a row means.

One process writes one file, under a lock that dies with it. Each line ends in a checksum: a reader passes over a line
that is torn, cut, or changed by anyone else.
"""

import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.durable import fsync_folder
from pipeline.errors import UserError
from pipeline.store.schema import VERSION

CHECKSUM = b',"crc32":"'  # the last member of every line's object


class Journal:
    """Append-only; `UserError` if another process has it open.

    `generation` numbers the processes that have written to a folder: it orders rows of the same utterance in different
    journals, whatever clocks and file times say.
    """

    def __init__(self, path: Path, generation: int) -> None:
        self._generation = generation
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0  # rows
        self._refused: OSError | None = None
        self._file = open(path, "ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(
                f"out={path.parent.parent} is in use: another process is rendering shard {path.stem}; "
                "wait for it, or choose another out="
            ) from None
        self._drop_torn_line()
        fsync_folder(path.parent)

    def append(self, row: dict[str, Any]) -> None:
        """Durable when it returns; a row that does not fit on the disk leaves no half of it.

        Any thread may call it. Rows that wait for the disk at the same time share one fsync. After a failed fsync every
        append raises: the system reports the failure only once, and rows would be lost unnoticed.
        """
        line = encode(row | {"generation": self._generation, "version": VERSION})
        with self._writing:
            self._raise_if_refused()
            self._write(line)
            self._written += 1
            number = self._written
        with self._syncing:  # whoever was in here before may have synced this row, too
            if self._synced < number:
                self._sync()

    def _write(self, line: bytes) -> None:
        data = memoryview(line)
        start = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(start)
            raise

    def _sync(self) -> None:
        self._raise_if_refused()
        written = self._written
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._refused = error
            raise
        self._synced = written

    def _raise_if_refused(self) -> None:
        if self._refused:
            raise self._refused

    def close(self) -> None:
        self._file.close()

    def _drop_torn_line(self) -> None:
        """A line without its end was being written when the power went: what follows must not stick to it."""
        end = self._file.seek(0, os.SEEK_END)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - 65_536)
            self._file.seek(start)
            tail, end = self._file.read(end - start), start
        self._file.truncate(end + tail.rfind(b"\n") + 1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line starts."""

    journal: Path
    offset: int


def encode(row: dict[str, Any]) -> bytes:
    """A journal's line: the row as JSON, with the checksum of what stands before it."""
    data = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    return data + CHECKSUM + b'%08x"}\n' % zlib.crc32(data)


def decode(line: bytes) -> dict[str, Any] | None:
    """The row of a line, or None if this is not what was written."""
    data, _, checksum = line.rpartition(CHECKSUM)
    if checksum != b'%08x"}\n' % zlib.crc32(data):
        return None
    try:
        return json.loads(data + b"}")
    except ValueError:  # signed by another program
        return None


def read_row(place: Place) -> dict[str, Any]:
    """The row that `read_lines` found there."""
    with open(place.journal, "rb") as file:
        file.seek(place.offset)
        return decode(file.readline())


def read_lines(folder: Path) -> Iterator[tuple[Place, bytes]]:
    """Every line of every journal in `folder`, one at a time, in each journal's order of writing.

    A last line without its end is being written, or torn.
    """
    for path in sorted(path for path in folder.glob("*.jsonl") if path.is_file()):
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                yield Place(path, offset), line
                offset += len(line)


def read_rows(folder: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every whole row of every journal in `folder`, in the order of `read_lines`."""
    for place, line in read_lines(folder):
        if (row := decode(line)) is not None:
            yield place, row
