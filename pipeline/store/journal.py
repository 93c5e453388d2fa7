"""The journal: one JSON row per finished utterance, appended and fsynced. Knows nothing of what a row means.

One process writes one file, under a lock that dies with it. A reader drops a line that is torn or cut.
"""

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store import fsync_folder

log = logging.getLogger(__name__)


class Journal:
    """Append-only; `UserError` if another process has it open.

    `generation` numbers the processes that have written to a folder: it orders rows of the same utterance in different
    journals, whatever clocks and file times say.
    """

    def __init__(self, path: Path, generation: int) -> None:
        self._generation = generation
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
        """Durable when it returns; a row that does not fit on the disk leaves no half of it."""
        row = row | {"generation": self._generation}
        data = memoryview(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        start = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(start)
            raise
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _drop_torn_line(self) -> None:
        """A line without its end was being written when the power went: what follows must not stick to it."""
        self._file.seek(0)
        data = self._file.read()
        self._file.truncate(data.rfind(b"\n") + 1)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Every whole row of every journal in `folder`, oldest first."""
    rows: list[dict[str, Any]] = []
    for path in sorted(path for path in folder.glob("*.jsonl") if path.is_file()):
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line's end is torn
        found = [row for line in lines if (row := _parse(line)) is not None]
        if broken := len(lines) - len(found):
            log.warning("%s: %d broken line(s) passed over; their utterances will be rendered again", path, broken)
        rows += found
    return sorted(rows, key=lambda row: row["generation"])  # stable: the order of writing within one journal


def _parse(line: bytes) -> dict[str, Any] | None:
    """A row with what the reader needs of it, or None."""
    try:
        row = json.loads(line)
        whole = isinstance(row["id"], str) and isinstance(row["key"], str) and isinstance(row["generation"], int)
        if row["status"] == "ok":
            whole &= isinstance(row["file_name"], str) and isinstance(row["num_samples"], int)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return row if whole else None
