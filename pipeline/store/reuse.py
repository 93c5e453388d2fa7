"""Speech that is durable under one id and wanted under another is taken over, not rendered again.

An edit that moves ids (a heading found, a paragraph inserted) changes no key, and the key names the samples. Ids may
trade places, so each WAV is first linked into `reuse/` under its key, and only then put where it is wanted. A kill at
any moment leaves each of them under one name or the other, and the next run goes on. Knows nothing of what is spoken.
"""

import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pipeline.durable import TEMPORARY, fsync_folder, make_folder, write_durably
from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.index import Entry, Index, has_length, is_done, replaced_row, sha256_of
from pipeline.store.journal import Journal, read_row
from pipeline.store.schema import Row, complete_row

HELD = re.compile(r"[0-9a-f]{32}\.wav")
THREADS = 4  # they wait for the disk, and their rows share an fsync


def find_reusable(planned: Sequence[Planned], index: Index, folder: RunFolder) -> list[tuple[Planned, Entry]]:
    """Missing utterances whose key has an ok row under any id and a WAV of the right length."""
    missing = (item for item in planned if not is_done(index.get(item.utterance.id), item.key, folder))
    found = ((item, index.spoken[item.key]) for item in missing if item.key in index.spoken)
    return [(item, entry) for item, entry in found if _source(entry, folder)]


def take_over(planned: Sequence[Planned], index: Index, folder: RunFolder, journal: Journal) -> int:
    """Put all reusable speech of a plan where it is wanted, each with a row of its own; returns how many.

    Only for a process that is alone in the folder.
    """
    found = find_reusable(planned, index, folder)
    if not found and not find_held(folder):
        return 0
    make_folder(folder.reuse)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="reuse") as pool:
        held = list(pool.map(lambda one: _hold(one[1], folder), found))
        fsync_folder(folder.reuse)
        taken = [one for one, is_held in zip(found, held, strict=True) if is_held]
        list(pool.map(lambda one: _place(*one, index, folder, journal), taken))
        list(pool.map(lambda entry: _remove_old_name(entry, folder), _find_old(planned, index, folder)))
    _clear(planned, folder)
    return len(taken)


def find_held(folder: RunFolder) -> dict[str, Path]:
    """The WAVs in `reuse/` by their key; whatever else is there is not ours."""
    if not folder.reuse.is_dir():
        return {}
    return {path.stem: path for path in folder.reuse.iterdir() if HELD.fullmatch(path.name)}


def _held(key: str, folder: RunFolder) -> Path:
    return folder.reuse / f"{key}.wav"


def _source(entry: Entry, folder: RunFolder) -> Path | None:
    """Where a key's WAV may be: held by a take-over that was killed, or in its place."""
    return next((path for path in _places(entry, folder) if has_length(path, entry)), None)


def _places(entry: Entry, folder: RunFolder) -> tuple[Path, Path]:
    return _held(entry.key, folder), folder.root / entry.file_name


def _hold(entry: Entry, folder: RunFolder) -> bool:
    """Have the WAV in `reuse/`; False if it is not, byte for byte, what was written."""
    source = next((path for path in _places(entry, folder) if sha256_of(path) == entry.audio_sha256), None)
    held = _held(entry.key, folder)
    if source and source != held:
        _link(source, held)
    return source is not None


def _link(source: Path, target: Path) -> None:
    """A second name for the file, durable once its folder is; a copy where the file system has no hard links."""
    temporary = target.with_name(target.name + TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # renaming one of two names of the same file to the other leaves both
    except OSError:
        write_durably(target, lambda path: shutil.copyfile(source, path))


def _place(item: Planned, entry: Entry, index: Index, folder: RunFolder, journal: Journal) -> None:
    path, last = folder.wav(item.utterance), index.get(item.utterance.id)
    if path.exists() or (last and last.status == "ok"):  # another key's WAV, or a row that would vouch for this one
        journal.append(replaced_row(item.utterance.id))
    make_folder(path.parent)
    _link(_held(item.key, folder), path)
    fsync_folder(path.parent)
    journal.append(_taken_row(item, entry, folder))


def _find_old(planned: Sequence[Planned], index: Index, folder: RunFolder) -> list[Entry]:
    """Entries of ids that left the plan, whose speech is durable under a new id."""
    ids, keys = {item.utterance.id for item in planned}, {item.key for item in planned}
    held = find_held(folder)
    old = [entry for entry in index.values() if entry.id not in ids and entry.key in keys and entry.key in held]
    return [entry for entry in old if sha256_of(held[entry.key]) == entry.audio_sha256]


def _remove_old_name(entry: Entry, folder: RunFolder) -> None:
    """The old id's last row stays ok. Whoever writes a WAV under that id again says first that it is replaced."""
    path = folder.root / entry.file_name
    if sha256_of(path) == entry.audio_sha256:
        path.unlink()


def _clear(planned: Sequence[Planned], folder: RunFolder) -> None:
    """Empty `reuse/` of what has a row now. Speech of another plan stays there until an audit moves it aside."""
    keys = {item.key for item in planned}
    for key, path in find_held(folder).items():
        if key in keys:
            path.unlink()
    with suppress(OSError):  # not empty
        folder.reuse.rmdir()


def _taken_row(item: Planned, entry: Entry, folder: RunFolder) -> Row:
    """The old row, with the utterance's fields from today's plan."""
    before = complete_row(read_row(entry.place))
    first = before["taken_from"] or entry.id
    return before | asdict(item.utterance) | dict(
        file_name=folder.wav(item.utterance).relative_to(folder.root).as_posix(),
        taken_from="" if first == item.utterance.id else first,
    )  # fmt: skip
