"""Who may write to a run's folder: the shards of one run of one edition. Knows nothing of what they write."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.config import GenerateConfig
from pipeline.errors import UserError
from pipeline.store import RunFolder
from pipeline.store.edition import Edition, write_edition


@contextmanager
def claim(folder: RunFolder, edition: Edition, config: GenerateConfig) -> Iterator[None]:
    """Hold the folder together with the other shards; `UserError` if another run or another book has it.

    Shards cut differently would render the same utterances twice at once, and other options would overwrite theirs,
    so all processes of a moment agree on both; the first of them writes that into the lock. Between runs all is free
    to change. The first is alone, so it also sweeps up what killed processes left.
    """
    cut = dict(num_shards=config.num_shards, chapters=config.chapters, limit=config.limit)
    wanted = [" ".join(f"{name}={value}" for name, value in cut.items()), edition.digest]
    with open(folder.lock, "a+") as lock:
        there: list[str] = []
        while len(there) != len(wanted):  # who writes it may be killed at that
            if _alone(lock):
                for path in folder.litter():
                    path.unlink()
                write_edition(folder, edition)
                lock.truncate(0)
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
def alone(folder: RunFolder) -> Iterator[None]:
    """Keep every other process out of the folder; `UserError` while one is in."""
    try:
        with open(folder.lock) as lock:
            if not _alone(lock):
                raise UserError(f"run={folder.root} is in use: a job is rendering into it; wait for it")
            yield
    except FileNotFoundError as error:
        raise UserError(f"run={folder.root}: no run in it; give the folder that jobs.generate wrote") from error


def _alone(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
