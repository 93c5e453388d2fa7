"""Who may write to a run's folder: the shards of one run of one plan. Knows nothing of what they write."""

import fcntl
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from pipeline.durable import make_folder
from pipeline.errors import UserError
from pipeline.store import RunFolder


@contextmanager
def lock_shared(folder: RunFolder, digest: str, cut: Mapping[str, Any], prepare: Callable[[], None]) -> Iterator[None]:
    """Hold the folder together with the other shards; `UserError` if another run or another book has it.

    All processes that hold the lock have the same `cut` and plan digest; the first writes them into the file and runs
    `prepare` alone. Processes that differ could render the same utterance at once, or overwrite each other's WAVs.
    """
    wanted = [" ".join(f"{name}={value}" for name, value in cut.items()), digest]
    with open(folder.lock, "a+") as lock:
        there: list[str] = []
        while len(there) != len(wanted):  # a process may be killed while it writes it
            if _try_exclusive(lock):
                for path in folder.leftovers():
                    path.unlink()
                lock.truncate(0)  # first: if this process dies, the next one prepares
                prepare()
                lock.write("\n".join(wanted))
                lock.flush()
            fcntl.flock(lock, fcntl.LOCK_SH)
            lock.seek(0)
            there = lock.read().split("\n")
        if there[0] != wanted[0]:
            raise UserError(f"out={folder.root} is in use by a run with {there[0]}; wait for it, or join it")
        if there != wanted:
            raise UserError(
                f"out={folder.root} is in use by a run with other options or another edition of the book; "
                "wait for it, or choose another out="
            )
        yield


@contextmanager
def lock_exclusive(folder: RunFolder) -> Iterator[None]:
    """Keep every other process out of the folder; `UserError` while one is in, or if there is no run in it.

    A lock's file that was lost is made again, empty: a job that begins meanwhile has to find it.
    """
    try:
        if not folder.lock.exists():
            if not folder.has_run():
                raise UserError(f"run={folder.root}: no run in it; give the folder that jobs.generate wrote")
            make_folder(folder.lock.parent)
            folder.lock.touch()
        lock = open(folder.lock)
    except OSError as error:
        raise UserError(f"run={folder.root}: cannot be read ({error.strerror}); check the path") from error
    with lock:
        if not _try_exclusive(lock):
            raise UserError(f"run={folder.root} is in use: a job is rendering into it; wait for it")
        yield


def read_cut(folder: RunFolder, digest: str) -> tuple[str | None, int | None] | None:
    """`chapters` and `limit` of the last run; None if it was of another plan, or if its file does not say."""
    try:
        lines = folder.lock.read_text().split("\n")
    except (OSError, ValueError):
        return None
    found = re.fullmatch(r"num_shards=\d+ chapters=(.*) limit=(None|\d+)", lines[0])
    if not found or lines[1:] != [digest]:
        return None
    chapters, limit = (None if value == "None" else value for value in found.groups())
    return chapters, limit and int(limit)


def _try_exclusive(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
