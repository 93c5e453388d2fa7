"""Broken inputs, 500 and some. A case's number alone decides its input, so a failure is repeated by `-k "[17]"`.

Whatever comes in, there is a result or one line that says what is wrong: no traceback, no hang, no memory beyond what
the input is worth, and nothing that is in a file is run.
"""

import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pipeline.engine.chatterbox.checkpoint import resolve

from ..conftest import Ended

HANG_S = 300  # no case takes 5
MEMORY = 2 * 2**30  # bytes a case may add to the most that was in use before


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """A case that hangs, or believes a header that promises terabytes, fails."""

    def hung(*_) -> None:
        pytest.fail(f"still going on after {HANG_S} s")  # no Exception: nothing that is tested may catch it

    before, used = signal.signal(signal.SIGALRM, hung), most_memory()
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert most_memory() - used < MEMORY


def most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture(scope="session")
def tiny(cache) -> Path:
    """The folder with the tiny stand-in's five files."""
    from pipeline.engine.chatterbox import stand_in

    found = resolve("stand-in-tiny", None, cache)
    if not found.folder.exists():
        stand_in.write(found.folder, found.model)
    return found.folder


def one_line(text: object) -> bool:
    """Whether a terminal shows it as one line; `str.splitlines` knows more line ends than a newline."""
    return len(str(text).splitlines()) == 1 and not any(char < " " for char in str(text))


def assert_planned_or_refused(ended: Ended) -> None:
    """A dry run went well, or said in one line on stderr what is wrong."""
    if ended.code == 0:
        assert "chosen: " in ended.out and ended.err == ""
    else:
        assert ended.code == 2 and ended.err.startswith("error: ") and one_line(ended.err.removesuffix("\n"))


def damaged(data: bytes, rng: Random, within: int | None = None) -> bytes:
    """`data` with bytes changed, taken out, put in, repeated or cut off, all in the first `within` bytes."""
    broken = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(min(len(broken), within or len(broken)) + 1)
        size = rng.choice([1, 1, 4, rng.randint(1, 200)])
        match rng.randrange(6):
            case 0 | 1:
                broken[at : at + size] = rng.randbytes(len(broken[at : at + size]))
            case 2:
                broken[at : at + size] = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * len(broken[at : at + size])
            case 3:
                del broken[at : at + size]
            case 4:
                broken[at:at] = rng.randbytes(size)
            case 5 if rng.random() < 0.2:
                del broken[at:]
    return bytes(broken)
