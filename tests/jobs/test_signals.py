"""SIGTERM and SIGINT to a real process: what is in flight is finished, or dropped after a while; the code is right."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.process import STOPPING

from ..conftest import UNMARKED, rows_of
from .processes import GENERATE, end_group, environment, in_group, until, workers_of
from .test_generate import OUT, rendered_anew, written

LONG = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(30))
JOURNAL = OUT / "journal" / "0-of-1.jsonl"
# An engine that never comes back, as one does whose driver hangs.
STUCK = """
import time
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
class Stuck(EspeakEngine):
    def synthesize(self, requests, stopping):
        time.sleep(1000)
        yield
registry.ENGINES["espeak"] = lambda config: Stuck(config.engine)
"""

# Its book takes longer than any test waits before its signal.
UNHURRIED = """
import time
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
class Unhurried(EspeakEngine):
    def synthesize(self, requests, stopping):
        for speech in super().synthesize(requests, stopping):
            time.sleep(0.1)
            yield speech
registry.ENGINES["espeak"] = lambda config: Unhurried(config.engine)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`start("grace_s=1", code=STUCK)`: the main job on a long book, in processes of its own; `code` in its worker."""
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(LONG)
    processes = []

    def start(*more: str, code: str = "", command: Sequence[str] = GENERATE) -> subprocess.Popen[str]:
        options = ["book=story.txt", "engine=espeak", UNMARKED, "wandb.mode=disabled", *more]
        (tmp_path / "in_worker.py").write_text(code)
        process = subprocess.Popen(
            [*command, *options],
            env=environment(tmp_path / "in_worker.py"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        end_group(process)


def wait_for(process: subprocess.Popen[str], condition) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for the signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught[1], 16) >> signum - 1 & 1)


def rows_written() -> int:
    return JOURNAL.read_bytes().count(b"\n") if JOURNAL.exists() else 0


@pytest.mark.parametrize(
    "signum, code, to",
    [
        (signal.SIGTERM, 143, "group"),  # as Slurm does
        (signal.SIGINT, 130, "supervisor"),
        pytest.param(signal.SIGHUP, 129, "supervisor", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 143, "worker", marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_the_job_with_its_code_and_the_same_command_goes_on(start, draft, story, signum, code, to):
    story.write_text(LONG)
    process = start()
    wait_for(process, lambda: rows_written() >= 3)
    if to == "group":
        os.killpg(process.pid, signum)
    else:
        os.kill(process.pid if to == "supervisor" else workers_of(process.pid)[0], signum)
    out, err = process.communicate()
    assert process.returncode == code and "Traceback" not in err
    assert err.count("finishing what is in flight") == (to != "worker") and "a new worker" not in out
    done = rows_of(OUT / "metadata.parquet")
    assert 3 <= len(done) < 30 and len(done) == len(written())
    assert json.loads(next(OUT.glob("runs/*.json")).read_text())["state"] == "stopped"
    before = written()
    assert draft(UNMARKED).code == 0
    assert len(rows_of(OUT / "metadata.parquet")) == 30 and not rendered_anew(before) & set(before)


@pytest.mark.parametrize("number", [n if n == 4 else pytest.param(n, marks=pytest.mark.long) for n in range(18)])
def test_a_signal_at_any_of_18_times_from_the_first_import_on_ends_the_job_with_its_code(start, number):
    """A handler that raised an exception could do so in a `__del__`, where Python swallows it."""
    chance, signum = random.Random(number), STOPPING[number % 3]
    process = start(code=UNHURRIED)
    wait_for(process, lambda: catches(process.pid, signal.SIGHUP))
    time.sleep(chance.uniform(0, 2.0) if number % 2 else chance.uniform(0, 0.5))
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum and "Traceback" not in err and "Exception ignored" not in err
    until(lambda: not in_group(process.pid))


def test_after_a_signal_a_worker_that_dies_is_not_replaced(start):
    told = "import os, signal\nopen('started', 'a').write('once ')\nos.kill(os.getppid(), signal.SIGTERM)\nos.abort()"
    process = start(code=told)
    out, err = process.communicate()
    assert process.returncode == 143 and out == "" and Path("started").read_text() == "once "


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
import runpy, signal, sys
from jobs import cli
main = cli.hydra.main
def ignoring(**options):
    return lambda task: main(**options)(lambda config: (signal.signal(signal.SIGTERM, signal.SIG_IGN), task(config)))
cli.hydra.main = ignoring
sys.argv[0] = "jobs/generate.py"
runpy.run_module("jobs.generate", run_name="__main__")
"""


def test_a_launcher_that_ignores_sigterm_does_not_make_the_job_ignore_it(start):
    process = start("grace_s=1", code=STUCK, command=[sys.executable, "-c", LAUNCHER])
    wait_for(process, lambda: list(OUT.glob("runs/*.json")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143


# As submitit does, too; Slurm sends SIGUSR2 to every process of a step.
REQUEUING = """
import runpy, signal, sys
signal.signal(signal.SIGUSR2, lambda *_: open("heard", "a").write("launcher "))
sys.argv[0] = "jobs/generate.py"
runpy.run_module("jobs.generate", run_name="__main__")
"""


@pytest.mark.long
def test_sigusr2_to_every_process_is_heard_by_the_launcher_and_ends_no_worker(start):
    process = start(command=[sys.executable, "-c", REQUEUING])
    wait_for(process, lambda: rows_written() >= 3)
    os.killpg(process.pid, signal.SIGUSR2)
    out, _ = process.communicate()
    assert process.returncode == 0 and "a new worker" not in out and Path("heard").read_text() == "launcher "
