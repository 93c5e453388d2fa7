"""A worker that dies is replaced, and the job ends as if nothing had happened; one that dies for nothing is not."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.store.journal import read_rows

from ..conftest import UNMARKED, rows_of
from .processes import GENERATE, environment

OUT = Path("outputs/story")
TEXT = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(8))
# An engine that dies after so many utterances, in every worker anew.
DYING = """
import ctypes, os, signal, time
from pathlib import Path
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
from pipeline.errors import DeviceLost
def lose():
    raise DeviceLost("device=cuda:0 answers no more (CUDA error: an illegal memory access)")
def rows():
    return sum(path.read_bytes().count(b"\\n") for path in Path("outputs/story/journal").glob("*.jsonl")) - before
class Dying(EspeakEngine):
    def synthesize(self, requests, stopping):
        global before
        before = 0
        before = rows()
        for number, speech in enumerate(super().synthesize(requests, stopping)):
            if number == {after}:
                while rows() < number:
                    time.sleep(0.01)
                {death}
            yield speech
registry.ENGINES["espeak"] = lambda config: Dying(config.engine)
"""
LOST = "lose()"
DEATHS = {
    LOST: "lost its device: device=cuda:0 answers no more (CUDA error: an illegal memory access)",
    "os.abort()": "was aborted (SIGABRT)",
    "ctypes.string_at(0)": "had a segmentation fault (SIGSEGV)",
    "os.kill(os.getpid(), signal.SIGKILL)": "was killed (SIGKILL, as the out-of-memory killer does)",
    "os.kill(os.getpid(), signal.SIGBUS)": "had a bus error (SIGBUS)",
    "os._exit(9)": "ended by itself, with exit code 9",
}


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """`generate(text, death, after=5)`: the main job, whose every worker dies like that after so many utterances."""
    monkeypatch.chdir(tmp_path)

    def run(
        text: str, death: str, *more: str, after: int = 5, command: Sequence[str] = GENERATE
    ) -> subprocess.CompletedProcess[str]:
        Path("story.txt").write_text(text)
        Path("in_worker.py").write_text(DYING.replace("{after}", str(after)).replace("{death}", death))
        line = [*command, *more, "book=story.txt", "engine=espeak", UNMARKED, "wandb.mode=disabled"]
        return subprocess.run(line, env=environment(tmp_path / "in_worker.py"), capture_output=True, text=True)

    return run


@pytest.mark.parametrize("death", [LOST, *(pytest.param(death, marks=pytest.mark.long) for death in [*DEATHS][1:])])
def test_a_worker_that_dies_is_replaced_in_one_line_and_the_next_one_goes_on(generate, death):
    ended = generate(TEXT, death)
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.count("the worker ") == 1
    assert f"the worker {DEATHS[death]}; what is durable is kept, a new worker goes on (1 of" in ended.stdout
    assert "8 utterances, 8 to render" in ended.stdout and "8 utterances, 3 to render" in ended.stdout
    assert len(rows_of(OUT / "metadata.parquet")) == 8
    states = [json.loads(path.read_text())["state"] for path in sorted((OUT / "runs").iterdir())]
    assert states == ["failed" if death == LOST else "running", "ended"]


def test_two_deaths_in_a_row_without_a_new_utterance_end_the_job_in_one_line(generate):
    ended = generate(TEXT, LOST, after=0)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and ended.stdout.count("the worker ") == 1
    assert ended.stderr.startswith("error: the worker lost its device: device=cuda:0 answers no more (CUDA error")
    assert "the second in a row without a new utterance" in ended.stderr
    assert ended.stderr.endswith("what is done is kept: run the same command again\n")


@pytest.mark.long
def test_more_deaths_than_max_restarts_end_the_job_and_what_is_done_stays(generate):
    ended = generate(TEXT * 2, LOST, "max_restarts=1")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "max_restarts=1 are used up" in ended.stderr
    assert len({row["id"] for _, row in read_rows(OUT / "journal")}) == 10


def test_a_bug_is_no_death_and_its_traceback_comes_once(generate):
    ended = generate(TEXT, "raise ZeroDivisionError('a bug')")
    assert ended.returncode == 1 and ended.stderr.count("Traceback") == 1
    assert ended.stderr.endswith("ZeroDivisionError: a bug\n") and "the worker " not in ended.stdout


@pytest.mark.long
def test_under_multirun_each_shard_has_a_worker_and_one_that_dies_is_replaced(generate):
    once = "Path('died').exists() or (Path('died').touch(), os.abort())"
    ended = generate(TEXT, once, "--multirun", "num_shards=2", "shard=0,1", after=2)
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.count("the worker was aborted (SIGABRT)") == 1
    assert len(rows_of(OUT / "metadata.parquet")) == 8


@pytest.mark.long
def test_under_multirun_a_shard_whose_workers_die_in_vain_does_not_keep_the_next_from_running(generate):
    ended = generate(TEXT, "os.abort()", "--multirun", "num_shards=2", "shard=0,1", after=0)
    assert ended.returncode == 1 and ended.stderr.count("error: the worker was aborted") == 2


# A launcher of Hydra that runs each task in a process of its own, as joblib's and submitit's do.
ELSEWHERE = """
import runpy, subprocess, sys
from hydra._internal.core_plugins import basic_launcher
from hydra.core.singleton import Singleton
import cloudpickle
THERE = (
    "import sys\\n"
    "from hydra.core.singleton import Singleton\\n"
    "from hydra.core.utils import run_job, setup_globals\\n"
    "import cloudpickle\\n"
    "setup_globals()\\n"
    "given, state = cloudpickle.load(sys.stdin.buffer)\\n"
    "Singleton.set_state(state)\\n"
    "run_job(**given).return_value\\n"
)
def elsewhere(**given):
    subprocess.run([sys.executable, "-c", THERE], input=cloudpickle.dumps((given, Singleton.get_state())), check=True)
basic_launcher.run_job = elsewhere
sys.argv[0] = "jobs/generate.py"
runpy.run_module("jobs.generate", run_name="__main__")
"""


@pytest.mark.long
def test_in_the_process_of_a_launcher_a_worker_that_dies_is_replaced_too(generate):
    pytest.importorskip("cloudpickle")
    once = "Path('died').exists() or (Path('died').touch(), os.abort())"
    there = [sys.executable, "-c", ELSEWHERE]
    ended = generate(TEXT, once, "--multirun", "num_shards=2", "shard=0,1", after=2, command=there)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("the worker was aborted (SIGABRT)") == 1
    assert len(rows_of(OUT / "metadata.parquet")) == 8
