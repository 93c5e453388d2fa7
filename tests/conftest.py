"""Shared by all tests: running a job in this process as the command line would, and reading what came out."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the jobs do, before torch is there
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

UNMARKED = "watermark.enabled=false"  # spares a process seconds of loading
STORY = """\
CHAPTER I.
The Door

"Is anyone there?" asked the traveller. He knocked a second time, and listened. Nobody came to
the door of the old house, and no light moved behind the shutters.

* * *

He turned his horse, and _then_ he heard it: a small, dry cough.


CHAPTER II.
The Stair

A candle came down the stair. Nobody was carrying it.

"Oh!"
"""


@dataclass(frozen=True)
class Ended:
    """How a job ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def job(monkeypatch, capsys, tmp_path):
    """`job("generate", "book=x.txt", ...)`: the command line, in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> Ended:
        from importlib import import_module

        from jobs.cli import main

        module = import_module(f"jobs.{name}")
        schema = getattr(module, f"{name.capitalize()}Config")
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *arguments])
        monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[:])  # Hydra changes them
        handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(name, schema, getattr(module, name))
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(-1)
        printed = capsys.readouterr()
        return Ended(end.value.code or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """`engine.cache=`: the stand-in's weights are written once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def story(tmp_path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture
def draft(job, story):
    """The main job with the draft voice on a short story, without W&B."""
    return lambda *more: job("generate", f"book={story.name}", "engine=espeak", "wandb.mode=disabled", *more)


@pytest.fixture
def bf16(monkeypatch):
    """BF16 on whatever CPU this is: one that is not quick at it computes the same."""
    from pipeline.device import dtypes

    monkeypatch.setattr(dtypes, "cpu_has_bf16", lambda: True)


@pytest.fixture
def compare_kernels() -> Callable[..., None]:
    """`compare_kernels(script, device, ...)` in a process of its own: Triton decides when it is imported whether to
    interpret, as it has to on a CPU.
    """
    pytest.importorskip("triton")

    def compare(script: str, device: str, *arguments: str) -> None:
        interpret = dict(TRITON_INTERPRET="1") if device == "cpu" else {}
        command = [sys.executable, "-c", script, device, *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=os.environ | interpret)
        assert run.returncode == 0, run.stderr

    return compare


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()
