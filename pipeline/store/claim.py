"""Who may write to a run's folder: the shards of one run of one book. Knows nothing of what they write."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.plan import Planned
from pipeline.store import RunFolder, write_durably
from pipeline.store.manifest import latest


@contextmanager
def claim(folder: RunFolder, num_shards: int, source: Path, planned: Sequence[Planned]) -> Iterator[None]:
    """Hold the folder together with the other shards; `UserError` if another run or another book has it.

    Shards cut differently would render the same utterances twice at once, so all processes of a moment agree on
    `num_shards`; the first of them writes it into the lock. Between runs it is free to change.
    """
    with open(folder.root / "journal" / "run.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(str(num_shards))
            lock.flush()
        except BlockingIOError:
            pass  # others are here already
        fcntl.flock(lock, fcntl.LOCK_SH)
        lock.seek(0)
        if (there := lock.read()) != str(num_shards):
            raise UserError(f"out={folder.root} is in use by a run with num_shards={there}; wait for it, or join it")
        _refuse_another_book(folder, os.fsencode(source.resolve()), planned)
        yield


def _refuse_another_book(folder: RunFolder, source: bytes, planned: Sequence[Planned]) -> None:
    """Two books of the same name would overwrite each other; one book that was moved is still the same."""
    note = folder.root / "journal" / "book"
    if note.exists() and (before := note.read_bytes()) != source:
        rows = [row for row in latest(folder).values() if row["status"] == "ok"]
        texts = {item.utterance.id: item.utterance.spoken_text for item in planned}
        if sum(texts.get(row["id"]) == row.get("spoken_text") for row in rows) * 2 < len(rows):
            raise UserError(f"out={folder.root} holds the speech of {os.fsdecode(before)}; choose another out=")
    write_durably(note, lambda temporary: temporary.write_bytes(source))
