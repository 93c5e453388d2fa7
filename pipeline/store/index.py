"""The last journal row of each utterance, and whether its WAV is there. Knows nothing of tables or texts."""

import hashlib
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import RunFolder
from pipeline.store.journal import Place, read_rows
from pipeline.store.rollback import ROLLBACK
from pipeline.store.schema import BOOKKEEPING, NAMES, Row, find_fault
from pipeline.store.wav import HEADER_BYTES

log = logging.getLogger(__name__)

NEEDED = ("id", "key", "status")
AUDIO = ("file_name", "num_samples", "audio_sha256")


@dataclass(frozen=True, slots=True)
class Entry:
    """The last row of an utterance, without what only the manifest needs."""

    id: str
    key: str
    status: str  # ok, failed, or replaced: its WAV is being written anew
    generation: int
    place: Place
    file_name: str = ""
    num_samples: int = 0
    audio_sha256: str = ""


class Index(dict[str, Entry]):
    """The last row of each utterance, by its id: it tells what the utterance's WAV is now."""

    def __init__(self) -> None:
        self.spoken: dict[str, Entry] = {}  # the latest ok row of each key, under any id
        self.unknown_columns: set[str] = set()  # names that today's code does not know

    @property
    def next_generation(self) -> int:
        return 1 + max((entry.generation for entry in self.values()), default=0)


def read_index(folder: RunFolder) -> Index:
    index = Index()
    known = BOOKKEEPING.union(NAMES)
    for place, row in read_rows(folder.root / "journal"):
        if row.get("status") == ROLLBACK:  # of no utterance
            continue
        fault = find_fault(row) or next((name for name in NEEDED if row.get(name) is None), "")
        if fault or not isinstance(row.get("generation", 0), int):
            log.warning("%s: a row with a wrong %s is passed over", place.journal, fault or "generation")
            continue
        audio = {name: row[name] for name in AUDIO if row.get(name) is not None} if row["status"] == "ok" else {}
        entry = Entry(row["id"], row["key"], row["status"], row.get("generation", 0), place, **audio)
        _keep_newest(index, entry.id, entry)
        if entry.status == "ok":
            _keep_newest(index.spoken, entry.key, entry)
        index.unknown_columns.update(row.keys() - known)
    return index


def _keep_newest(entries: dict[str, Entry], name: str, entry: Entry) -> None:
    before = entries.get(name)
    if before is None or entry.generation >= before.generation:
        entries[name] = entry


def replaced_row(id: str) -> Row:
    """Marks the WAV as being rewritten: earlier rows no longer describe it."""
    return dict(id=id, key="", status="replaced")


def is_done(entry: Entry | None, key: str, folder: RunFolder) -> bool:
    """An utterance is done when its last row says ok, for the same key, and its WAV is there in full length."""
    return entry is not None and entry.status == "ok" and entry.key == key and has_wav(entry, folder)


def has_wav(entry: Entry, folder: RunFolder) -> bool:
    """Whether there is a file of the right length where the entry says."""
    return has_length(folder.root / entry.file_name, entry)


def has_length(path: Path, entry: Entry) -> bool:
    try:
        return os.path.getsize(path) == HEADER_BYTES + 2 * entry.num_samples
    except OSError:
        return False


def changed_on_disk(entries: Iterable[Entry], folder: RunFolder) -> list[Entry]:
    """Those whose WAV is not, byte for byte, what was written."""
    with ThreadPoolExecutor() as pool:  # hashing and reading leave Python's lock
        checked = pool.map(lambda entry: (entry, sha256_of(folder.root / entry.file_name)), entries)
        return [entry for entry, sha256 in checked if sha256 != entry.audio_sha256]


def sha256_of(path: Path) -> str:
    """Of a file's bytes; empty if they cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
