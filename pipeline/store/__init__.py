"""A run's folder and what is durable in it. Knows nothing of engines or checks.

The journal is the truth: an utterance is done when its row is there and its WAV is there. The order of writing makes
that safe against a kill at any moment: WAV to a temporary name, fsync, rename, fsync the folder, then the row.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.data import Utterance
from pipeline.durable import TEMPORARY, make_folder
from pipeline.errors import UserError, WorkError


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

    def has_run(self) -> bool:
        """Whether a run was rendered into the folder: a plan or journals are there."""
        return os.path.isfile(self.plan) or os.path.isdir(self.root / "journal")  # unlike Path's, never an error

    def check(self) -> None:
        """`UserError` if the folder cannot be made where it is wanted. Writes nothing."""
        place = next((place for place in (self.root, *self.root.parents) if os.path.lexists(place)), Path("."))
        if not os.path.exists(place):
            raise UserError(
                f"out={self.root}: {place} is a link to {os.readlink(place)}, which is not there; "
                "make that folder, or choose another out="
            )
        if not place.is_dir():
            raise UserError(f"out={self.root}: {place} is a file; choose another out=")

    def create(self) -> None:
        """Make the folder, or say in one line why it cannot be."""
        if self.reuse.is_symlink() or (self.reuse.exists() and not self.reuse.is_dir()):
            raise UserError(f"out={self.root}: {self.reuse} is in the way; move it, or choose another out=")
        try:
            for name in ("wavs", "journal", "runs"):
                make_folder(self.root / name)
                if not os.access(self.root / name, os.W_OK):
                    raise PermissionError(f"{self.root / name} is read-only")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WorkError(
                    f"no room for {self.root}: {error}; fix that, then run the same command again"
                ) from error
            raise UserError(f"out={self.root} is not writable ({error}); choose another out=") from error

    @property
    def reuse(self) -> Path:
        """Holds speech while it is taken over; see `store.reuse`."""
        return self.root / "reuse"

    def leftovers(self) -> list[Path]:
        """What killed processes were writing and never finished. Only for a process that is alone in the folder."""
        tops = (self.root, self.root / "runs", self.root / "journal", self.reuse)
        places = (*(top.glob for top in tops), (self.root / "wavs").rglob)
        return [path for find in places for path in find(f"*{TEMPORARY}") if path.is_file()]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an error of the disk into one line that ends the job; all that was durable stays so."""
        try:
            yield
        except OSError as error:
            raise WorkError(
                f"cannot write to {self.root}: {error}; fix that, then run the same command again"
            ) from error
