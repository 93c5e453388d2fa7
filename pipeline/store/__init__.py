"""A run's folder and what is durable in it. Knows nothing of engines or checks.

The journal is the truth: an utterance is done when its row is there and its WAV is there. The order of writing makes
that safe against a kill at any moment: WAV to a temporary name, fsync, rename, fsync the folder, then the row.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.book import Utterance
from pipeline.errors import UserError, WorkError

TEMPORARY = ".tmp"
_MAKING = threading.Lock()  # a folder that a thread finds there may not be durable yet: another is just making it


@dataclass(frozen=True)
class RunFolder:
    """Where things are in a run's folder."""

    root: Path

    def wav(self, utterance: Utterance) -> Path:
        return self.root / "wavs" / f"{utterance.chapter:03d}" / f"{utterance.id}.wav"

    def journal(self, shard: int, num_shards: int) -> Path:
        return self.root / "journal" / f"{shard}-of-{num_shards}.jsonl"

    @property
    def book(self) -> Path:
        return self.root / "book.txt"

    @property
    def plan(self) -> Path:
        return self.root / "plan.parquet"

    @property
    def manifest(self) -> Path:
        return self.root / "metadata.parquet"

    @property
    def failed(self) -> Path:
        return self.root / "failed.parquet"

    @property
    def lock(self) -> Path:
        return self.root / "journal" / "run.lock"

    def create(self) -> None:
        """Make the folder, or say in one line why it cannot be."""
        try:
            for name in ("wavs", "journal", "runs"):
                make_folder(self.root / name)
                if not os.access(self.root / name, os.W_OK):
                    raise PermissionError(f"{self.root / name} is read-only")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WorkError(f"no room for {self.root}: {error}; mend that, then run the same again") from error
            raise UserError(f"out={self.root} is not writable ({error}); choose another out=") from error

    def litter(self) -> list[Path]:
        """What killed processes were writing and never finished. Only for who is alone in the folder."""
        places = (self.root.glob, (self.root / "runs").glob, (self.root / "journal").glob, (self.root / "wavs").rglob)
        return [path for find in places for path in find(f"*{TEMPORARY}") if path.is_file()]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the disk refuses ends the job, in one line; all that was durable stays so."""
        try:
            yield
        except OSError as error:
            raise WorkError(f"cannot write to {self.root}: {error}; mend that, then run the same again") from error


def write_durably(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then make it `path`: whole or not at all, even if power fails."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a full disk needs the room; a signal should leave no litter
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make `path` and what is missing above it, durably."""
    with _MAKING:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            fsync_folder(folder.parent)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
