import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config import WandbConfig
from pipeline.telemetry import tracker as module
from pipeline.telemetry.tracker import Wandb, has_key
from pipeline.telemetry.wandb_child import fixed_id

from .wandb_server import KINDS, wandb_server

JOB = """
import logging, sys, time
from pathlib import Path
from pipeline.config import WandbConfig
from pipeline.telemetry.tracker import Wandb

logging.basicConfig(level=logging.WARNING)
tracker = Wandb(WandbConfig(mode="online"), Path(sys.argv[1]), "0-of-1", {"seed": 0})
tracker.utterance({"status": "ok", "id": "a", "text": "Hello.", "file_name": "a.wav"})
tracker.log({"x_realtime": 3.0})
time.sleep(float(sys.argv[2]))
tracker.log({"x_realtime": 4.0})
tracker.finish({"utterances_in_all": 1})
print("ended well")
"""


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run's folder with one WAV."""
    (tmp_path / "book").mkdir()
    soundfile.write(tmp_path / "book" / "a.wav", np.zeros(2400), 24_000)
    return tmp_path / "book"


@pytest.fixture
def in_wandb(no_key, monkeypatch, tmp_path):
    """`in_wandb(code)` runs `code` in W&B's process before anything else happens there."""

    def patch(code: str) -> None:
        (tmp_path / "patch").mkdir()
        first = f"import tempfile, time\ntempfile.tempdir = {str(tmp_path)!r}\nimport wandb\n"
        (tmp_path / "patch" / "sitecustomize.py").write_text(first + code)
        monkeypatch.syspath_prepend(tmp_path / "patch")

    return patch


def ok(name: str) -> dict:
    return {"status": "ok", "id": name, "text": "Hello.", "file_name": f"{name}.wav"}


def in_the_file(folder: Path, *names: str) -> bool:
    """Whether the figures are where `wandb sync` finds them."""
    kept = b"".join(path.read_bytes() for path in folder.glob("wandb/*run-*/*.wandb"))
    return all(name.encode() in kept for name in names)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_without_a_key_the_run_is_offline_and_its_files_are_inside_the_folder(no_key, folder, caplog):
    tracker = Wandb(WandbConfig(audio_samples=2), folder, "0-of-1", {"seed": 0})
    tracker.utterance(ok("a"))
    tracker.log({"x_realtime": 3.0})
    tracker.finish({"utterances_in_all": 1})
    assert caplog.text == ""
    (run,) = folder.glob("wandb/offline-run-*")
    assert run.name.endswith((folder / "wandb" / "0-of-1.id").read_text())
    assert in_the_file(folder, "x_realtime", "utterances_in_all")


def test_a_table_is_kept_with_the_run_cells_that_are_not_known_included(no_key, folder, caplog):
    tracker = Wandb(WandbConfig(), folder, "0-of-1", {})
    tracker.table("precision", ("policy", "kl_nats"), [("fp32", 0.0), ("fp16", None)])
    tracker.finish({})
    assert caplog.text == ""
    (file,) = folder.glob("wandb/offline-run-*/files/media/table/precision_*.table.json")
    assert json.loads(file.read_text())["data"] == [["fp32", 0.0], ["fp16", None]]
    assert not list(file.parent.glob("samples*"))  # nothing was spoken


def test_a_table_that_wandb_refuses_is_one_line(no_key, folder, caplog):
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    tracker.table("precision", ("policy", "kl_nats"), [("fp32",)])
    tracker.finish({})
    (line,) = warnings(caplog)
    assert line.startswith("W&B failed, the job goes on: ")


def test_whatever_the_server_does_the_process_ends_well_says_so_once_and_keeps_the_figures(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    jobs = {}
    with ExitStack() as servers:
        for kind in KINDS:
            folder = tmp_path / kind
            folder.mkdir()
            soundfile.write(folder / "a.wav", np.zeros(2400), 24_000)
            jobs[kind] = subprocess.Popen(
                [sys.executable, "-c", JOB, str(folder), "8"],
                env=os.environ | {"WANDB_BASE_URL": servers.enter_context(wandb_server(kind))},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        printed = {kind: job.communicate(timeout=120)[0].splitlines() for kind, job in jobs.items()}
    for kind, job in jobs.items():
        trouble, last = printed[kind]
        assert job.returncode == 0 and last == "ended well", printed[kind]
        assert "W&B failed, the job goes on: " in trouble and "wandb sync --include-online " in trouble
        assert in_the_file(tmp_path / kind, "x_realtime", "utterances_in_all"), kind


def test_a_start_that_fails_is_one_line(in_wandb, folder, caplog):
    in_wandb("def refuse(**_): raise RuntimeError('quota exceeded\\nfor you')\nwandb.init = refuse")
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    tracker.utterance(ok("a"))
    tracker.log({"x": 1})
    tracker.finish({})
    assert warnings(caplog) == ["W&B failed, the job goes on: quota exceeded for you"]


def test_wandb_throwing_in_the_middle_is_one_line_and_what_it_has_is_kept(in_wandb, folder, caplog):
    in_wandb(
        "log = wandb.Run.log\n"
        "def once(run, figures):\n"
        "    if 'second' in figures: raise RuntimeError('no more')\n"
        "    log(run, figures)\n"
        "wandb.Run.log = once\n"
    )
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    for name in ("first", "second", "third"):
        tracker.log({name: 1})
    tracker.finish({})
    tracker.log({"fourth": 1})
    (line,) = warnings(caplog)
    assert line.startswith("W&B failed, the job goes on: no more; send what is on disk: wandb sync")
    assert in_the_file(folder, "first")


def test_wandb_blocking_in_the_middle_holds_up_neither_a_window_nor_the_end(in_wandb, folder, monkeypatch, caplog):
    in_wandb("wandb.Run.log = lambda *_: time.sleep(1000)")
    monkeypatch.setattr(module, "FINISH_S", 2)
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    process = tracker._child
    for _ in range(10):
        tracker.log({"x": 1})
    tracker.finish({})
    assert process.poll() == -signal.SIGKILL
    (line,) = warnings(caplog)
    assert line.startswith("W&B failed, the job goes on: it did not end within 2 s")


def test_a_process_that_no_longer_listens_does_not_hold_up_a_window(no_key, folder, caplog):
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    tracker._child.send_signal(signal.SIGSTOP)
    for _ in range(1000):
        tracker.log({"x": 1, "padding": 1000 * "x"})
    tracker.finish({})
    (line,) = warnings(caplog)
    assert line.startswith("W&B failed, the job goes on: it does not keep up")


def test_a_process_that_is_killed_is_one_line(no_key, folder, caplog):
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    tracker._child.kill()
    tracker._child.wait()
    tracker.log({"x": 1})
    tracker.finish({})
    assert warnings(caplog) == ["W&B failed, the job goes on: its process has ended"]


def test_a_folder_that_takes_no_files_is_one_line(no_key, folder, caplog):
    (folder / "wandb").write_text("in the way")
    tracker = Wandb(WandbConfig(mode="offline"), folder, "0-of-1", {})
    tracker.log({"x": 1})
    tracker.finish({})
    (line,) = warnings(caplog)
    assert line.startswith("W&B failed, the job goes on: [Errno 17]")


def test_a_job_that_is_killed_leaves_no_process_behind(no_key, folder):
    job = subprocess.Popen([sys.executable, "-c", JOB.replace("online", "offline"), str(folder), "1000"])
    until(lambda: list(folder.glob("wandb/*run-*/*.wandb")))
    assert processes_of(folder)
    job.kill()
    job.wait()
    until(lambda: not processes_of(folder))


def processes_of(folder: Path) -> list[str]:
    """W&B's processes that live and write to `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # gone, or a zombie
    return found


def until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_shard_keeps_its_id_and_another_shard_has_another(tmp_path):
    first = fixed_id(tmp_path / "0-of-2.id")
    assert fixed_id(tmp_path / "0-of-2.id") == first != fixed_id(tmp_path / "1-of-2.id")


def test_a_key_is_looked_for_and_never_asked_for(no_key, monkeypatch):
    assert not has_key()
    no_key.write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert has_key()
    no_key.write_text("machine example.org\n  login user\n  password 0123\n")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert has_key()


def test_the_audio_table_is_a_sample_of_all_utterances_not_the_first_ones(monkeypatch, tmp_path):
    def none(_):
        raise OSError("no process")

    monkeypatch.setattr(module, "start_child", none)
    tracker = Wandb(WandbConfig(audio_samples=5), tmp_path, "0-of-1", {})
    for n in range(500):
        tracker.utterance(ok(str(n)))
    tracker.utterance({"status": "failed"})
    assert len(tracker._sample) == 5 and max(int(row["id"]) for row in tracker._sample) > 50
