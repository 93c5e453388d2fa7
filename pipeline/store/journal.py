"""The journal: one JSON row per finished utterance, appended and fsynced. Knows nothing of what a row means.

One process writes one file, under a lock that dies with it. A reader drops a line that is torn or cut.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

log = logging.getLogger(__name__)


class Journal:
    """Append-only; `UserError` if another process has it open."""

    def __init__(self, path: Path) -> None:
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

    def append(self, row: dict[str, Any]) -> None:
        """Durable when it returns."""
        self._file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _drop_torn_line(self) -> None:
        """A line without its end was being written when the power went: what follows must not stick to it."""
        self._file.seek(0)
        data = self._file.read()
        self._file.truncate(data.rfind(b"\n") + 1)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole row of every journal in `folder`; the journal that was written to last comes last."""
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        broken = 0
        with open(path, "rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    broken += 1
                    continue
                yield row
        if broken:
            log.warning("%s: %d broken line(s) passed over; their utterances will be rendered again", path, broken)
