"""Hashes of large files, kept between runs. Knows nothing of what is in the files.

Hashing a checkpoint takes seconds. A hash is kept under the file's path, size, time of change and inode.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pipeline.durable import write_durably

SETTLED_S = 2.0  # a file that changed later than this before it was hashed may change again within its clock's tick


def hash_file(path: Path, cache: Path) -> str:
    """The file's SHA-256 as hex, from `cache` if the file is as it was. A cache that cannot be written is no error."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    kept, mark = cache / "hashes" / f"{name}.json", _describe(path)
    if digest := _read(kept, mark):
        return digest
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if _describe(path) == mark and time.time() - os.stat(path).st_mtime > SETTLED_S:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_durably(kept, lambda temporary: temporary.write_text(json.dumps(dict(mark=mark, sha256=digest))))
    return digest


def _describe(path: Path) -> list[int]:
    """What of a file changes when its bytes do."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _read(kept: Path, mark: list[int]) -> str:
    """The digest in `kept`; "" if there is none for this mark."""
    try:
        found = json.loads(kept.read_text())
        return found["sha256"] if found["mark"] == mark else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""
