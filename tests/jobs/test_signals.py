"""SIGTERM and SIGINT to a real process: what is in flight is finished, or dropped after a while; the code is right."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import UNMARKED, rows_of
from .test_generate import OUT, rendered_anew, written

LONG = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(30))
JOURNAL = OUT / "journal" / "0-of-1.jsonl"
# An engine that never comes back, as one does whose driver hangs.
STUCK = """
import sys, time
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
class Stuck(EspeakEngine):
    def synthesize(self, requests, stopping):
        time.sleep(1000)
        yield
registry.ENGINES["espeak"] = lambda config: Stuck(config.engine)
sys.argv[0] = "jobs/generate.py"
import runpy
runpy.run_module("jobs.generate", run_name="__main__")
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`start("grace_s=1", code=STUCK)`: the main job on a long book, in a process of its own."""
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(LONG)
    processes = []

    def start(*more: str, code: str = "") -> subprocess.Popen[str]:
        program = ["-c", code] if code else ["-m", "jobs.generate"]
        options = ["book=story.txt", "engine=espeak", UNMARKED, "wandb.mode=disabled", *more]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(
            [sys.executable, *program, *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()


def wait_for(process: subprocess.Popen[str], condition) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def rows_written() -> int:
    return JOURNAL.read_bytes().count(b"\n") if JOURNAL.exists() else 0


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_job_with_its_code_and_the_same_command_goes_on(start, draft, story, signum, code):
    story.write_text(LONG)
    process = start()
    wait_for(process, lambda: rows_written() >= 3)
    process.send_signal(signum)
    out, err = process.communicate()
    assert process.returncode == code and "Traceback" not in err and "finishing what is in flight" in err
    done = rows_of(OUT / "metadata.parquet")
    assert 3 <= len(done) < 30 and len(done) == len(written())
    assert json.loads(next(OUT.glob("runs/*.json")).read_text())["state"] == "stopped"
    before = written()
    assert draft(UNMARKED).code == 0
    assert len(rows_of(OUT / "metadata.parquet")) == 30 and not rendered_anew(before) & set(before)


def test_what_does_not_end_within_grace_s_is_dropped(start, job):
    process = start("grace_s=1", code=STUCK)
    wait_for(process, lambda: list(OUT.glob("runs/*.json")))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in err
    assert job("generate", "book=story.txt", "engine=espeak", "wandb.mode=disabled", "limit=2").code == 0


def test_a_second_signal_ends_it_at_once_and_without_damage(start, job):
    process = start("grace_s=3600", code=STUCK)
    wait_for(process, lambda: list(OUT.glob("runs/*.json")))
    process.send_signal(signal.SIGTERM)
    assert "finishing what is in flight" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert job("generate", "book=story.txt", "engine=espeak", "wandb.mode=disabled", "limit=2").code == 0


def test_sigusr2_is_left_to_the_launcher(start, job, monkeypatch):
    """submitit asks a job by it to queue itself again; its handler must still be there while the job runs."""
    import jobs.generate

    heard, generate = [], jobs.generate.generate
    mine = signal.signal(signal.SIGUSR2, lambda *_: heard.append("launcher"))
    try:

        def during(config, stop):
            os.kill(os.getpid(), signal.SIGUSR2)
            return generate(config, stop)

        monkeypatch.setattr(jobs.generate, "generate", during)
        assert job("generate", "book=story.txt", "engine=espeak", "dry_run=true").code == 0
    finally:
        signal.signal(signal.SIGUSR2, mine)
    assert heard == ["launcher"]


# As submitit does before it calls the task.
LAUNCHER = """
import signal
from jobs import cli
main = cli.hydra.main
def ignoring(**options):
    return lambda task: main(**options)(lambda config: (signal.signal(signal.SIGTERM, signal.SIG_IGN), task(config)))
cli.hydra.main = ignoring
"""


def test_a_launcher_that_ignores_sigterm_does_not_make_the_job_ignore_it(start):
    process = start("grace_s=1", code=LAUNCHER + STUCK)
    wait_for(process, lambda: list(OUT.glob("runs/*.json")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
