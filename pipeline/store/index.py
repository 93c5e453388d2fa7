"""The last journal row of each utterance, and whether its WAV is there. Knows nothing of tables or texts."""

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.journal import Place, decode, read_lines
from pipeline.store.rollback import ROLLBACK
from pipeline.store.schema import BOOKKEEPING, NAMES, Row, find_fault
from pipeline.store.wav import HEADER_BYTES

NEEDED = ("id", "key", "status")
AUDIO = ("file_name", "num_samples", "audio_sha256")
BROKEN, CUT = "that are broken", "cut off"  # CUT: a last line that is being written, or torn


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


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A journal's line that is no row."""

    journal: Path
    id: str  # of the utterance that it seems to be of; empty: it does not say
    why: str  # what is wrong with it, behind "lines "


class Index(dict[str, Entry]):
    """The last row of each utterance, by its id: it tells what the utterance's WAV is now."""

    def __init__(self) -> None:
        self.spoken: dict[str, Entry] = {}  # the latest ok row of each key, under any id
        self.unknown_columns: set[str] = set()  # names that today's code does not know
        self.passed_over: list[PassedOver] = []

    def lost_rows(self, planned: Iterable[Planned]) -> list[PassedOver]:
        """The lines that may have been the row of one of `planned` that has none now.

        What a line told of has a row again once it was rendered again. From then on the line costs nothing.
        """
        ids = {item.utterance.id for item in planned if not self.has_row(item)}
        return [line for line in self.passed_over if line.id in ids or (ids and not line.id)]

    def has_row(self, item: Planned) -> bool:
        """Whether the last row of an utterance, ok or failed, is for the key that it has now."""
        entry = self.get(item.utterance.id)
        return entry is not None and entry.key == item.key

    @property
    def next_generation(self) -> int:
        return 1 + max((entry.generation for entry in self.values()), default=0)


def read_index(folder: RunFolder) -> Index:
    """The index of all journals. A line that is no row is kept in `passed_over`, and costs only itself."""
    index = Index()
    known = BOOKKEEPING.union(NAMES)
    for place, line in read_lines(folder.root / "journal"):
        row = decode(line)
        if row is not None and row.get("status") == ROLLBACK:  # of no utterance
            continue
        if fault := _fault(line, row):
            index.passed_over.append(PassedOver(place.journal, _seeming_id(line), fault))
            continue
        audio = {name: row[name] for name in AUDIO if row.get(name) is not None} if row["status"] == "ok" else {}
        entry = Entry(row["id"], row["key"], row["status"], row.get("generation", 0), place, **audio)
        _keep_newest(index, entry.id, entry)
        if entry.status == "ok":
            _keep_newest(index.spoken, entry.key, entry)
        index.unknown_columns.update(row.keys() - known)
    return index


def _fault(line: bytes, row: Row | None) -> str:
    """Why a line is no row; empty: it is one."""
    if row is None:
        return BROKEN if line.endswith(b"\n") else CUT
    fault = find_fault(row) or next((name for name in NEEDED if row.get(name) is None), "")
    if not fault and not isinstance(row.get("generation", 0), int):
        fault = "generation"
    return fault and f"with a wrong {fault}"


def _seeming_id(line: bytes) -> str:
    """The id at the beginning of a line that cannot be trusted; empty: none can be read."""
    found = re.match(rb'\{"id":"([^"\\]+)"', line)
    return found[1].decode(errors="replace") if found else ""


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
