"""Jobs as processes of their own: how to start them, get at their workers, and see what is left. Not a test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATE = [sys.executable, "-m", "jobs.generate"]


def environment(in_worker: Path | None = None, **more: str) -> dict[str, str]:
    """For a job of this clone. The code of the file `in_worker` runs first in each of its workers."""
    path = os.pathsep.join(map(str, (Path(__file__).with_name("in_worker"), ROOT, *sys.path)))
    return os.environ | more | {"PYTHONPATH": path} | ({"IN_WORKER": str(in_worker)} if in_worker else {})


def workers_of(pid: int) -> list[int]:
    """The workers of a supervisor, not those that are dead."""
    return [child for child in children_of(pid) if b"pipeline.run.worker" in command_of(child)]


def children_of(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def command_of(pid: int) -> bytes:
    """Its command line; nothing if it is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    return command_of(pid) != b""


def in_group(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def end_group(leader: subprocess.Popen) -> None:
    """Kill a job that leads its group, whatever it is made of, and wait until nothing of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    until(lambda: not in_group(leader.pid))


def until(true: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
