"""Files that survive a kill or a power cut. Knows nothing of what is in them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".tmp"  # ends the name of a file that is still being written
_MAKING = threading.Lock()  # a folder that another thread has just made may not be durable yet


def write_durably(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then rename it to `path`: whole or not at all, even if power fails."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a full disk needs the room; a signal should leave no half-written file
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make `path` and the folders missing above it, durably."""
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
