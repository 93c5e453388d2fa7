"""A device that answers no more comes back to a new process only: the job begins anew, once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.store.journal import read_rows

from ..conftest import UNMARKED, rows_of

OUT = Path("outputs/story")
TEXT = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(8))
# An engine whose device is lost after so many utterances, in every process anew.
LOSING = """
import os, runpy, sys
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
from pipeline.errors import DeviceLost
class Losing(EspeakEngine):
    def synthesize(self, requests, stopping):
        for number, speech in enumerate(super().synthesize(requests, stopping)):
            if number == 5:
                raise DeviceLost("device=cuda:0 answers no more (CUDA error: an illegal memory access)")
            yield speech
registry.ENGINES["espeak"] = lambda config: Losing(config.engine)
sys.argv[0] = "jobs/generate.py"
runpy.run_module("jobs.generate", run_name="__main__")
"""


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """The main job in a process of its own, whose device is lost after five utterances."""
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}

    def run(text: str) -> subprocess.CompletedProcess[str]:
        Path("story.txt").write_text(text)
        command = [sys.executable, "-c", LOSING, "book=story.txt", "engine=espeak", UNMARKED, "wandb.mode=disabled"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def test_after_its_device_is_lost_the_job_runs_its_own_command_again_and_ends_it(generate):
    ended = generate(TEXT)
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout.count("beginning anew, once") == 1 and "8 to render" in ended.stdout
    assert "3 to render" in ended.stdout and len(rows_of(OUT / "metadata.parquet")) == 8
    states = [json.loads(path.read_text())["state"] for path in sorted((OUT / "runs").iterdir())]
    assert states == ["failed", "ended"]


def test_a_device_that_is_lost_again_ends_the_job_and_what_is_done_stays(generate):
    ended = generate(TEXT * 2)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("error: device=cuda:0 answers no more (CUDA error")
    assert ended.stderr.endswith("what is done is kept: run the same command again\n")
    assert len({row["id"] for _, row in read_rows(OUT / "journal")}) == 10
