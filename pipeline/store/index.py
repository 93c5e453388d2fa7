"""What the journals say of each utterance now, and whether its WAV bears it out. Knows nothing of tables or texts."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import RunFolder
from pipeline.store.journal import Place, read_rows
from pipeline.store.rollback import ROLLBACK
from pipeline.store.wav import HEADER_BYTES

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


def read_index(folder: RunFolder) -> dict[str, Entry]:
    """The last row of each utterance: it tells what the utterance's WAV is now."""
    index: dict[str, Entry] = {}
    for place, row in read_rows(folder.root / "journal"):
        if row["status"] == ROLLBACK:  # of no utterance
            continue
        before = index.get(row["id"])
        if before is None or row["generation"] >= before.generation:
            audio = {name: row[name] for name in AUDIO} if row["status"] == "ok" else {}
            index[row["id"]] = Entry(row["id"], row["key"], row["status"], row["generation"], place, **audio)
    return index


def is_done(entry: Entry | None, key: str, folder: RunFolder) -> bool:
    """An utterance is done when its last row says ok, for the same key, and its WAV is there in full length."""
    if entry is None or entry.status != "ok" or entry.key != key:
        return False
    try:
        return os.path.getsize(folder.root / entry.file_name) == HEADER_BYTES + 2 * entry.num_samples
    except OSError:
        return False


def spoilt(entries: Iterable[Entry], folder: RunFolder) -> list[Entry]:
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
