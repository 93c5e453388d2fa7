"""A signal that comes to every process of a job loses no figure: the real wandb, offline."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import WandbConfig
from pipeline.telemetry.tracker import Wandb

BLOCK = 32_768  # of LevelDB's log format, which a run's file has behind 7 bytes of its own


def records(path: Path) -> Iterator:
    """The records of a `.wandb` file that are whole."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def descendants(pid: int) -> list[int]:
    children = [int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


def names(pids: list[int]) -> list[str]:
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]


@pytest.fixture
def tracker(monkeypatch, tmp_path):
    """A tracker whose wandb runs, with one figure told."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    made = Wandb(WandbConfig(mode="offline"), tmp_path, "0-of-1", {"seed": 0})
    made.log({"first": 1})
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("wandb/*run-*/*.wandb")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return made


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.long) for n in (signal.SIGINT, signal.SIGHUP))]
)
def test_a_signal_to_every_process_of_a_job_loses_no_figure_and_the_run_is_finished(tracker, tmp_path, caplog, signum):
    hit = descendants(os.getpid())
    assert "wandb-core" in names(hit)
    for pid in hit:
        os.kill(pid, signum)
    tracker.log({"second": 2})
    tracker.finish({"in_all": 3})
    assert caplog.text == ""
    last = max(tmp_path.glob("wandb/*run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    whole = list(records(last))
    logged = [item.key or ".".join(item.nested_key) for record in whole for item in record.history.item]
    assert [name for name in logged if not name.startswith("_")] == ["first", "second"]
    assert any(record.HasField("exit") for record in whole)
