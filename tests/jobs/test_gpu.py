"""The main job on a GPU that fails for real: out of memory, and a kernel that takes the whole context with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import rows_of

pytestmark = pytest.mark.gpu
TEXT = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(1200))
RUN = """
import runpy, sys
sys.argv[0] = "jobs/generate.py"
runpy.run_module("jobs.generate", run_name="__main__")
"""
# A fiftieth of the card, of which the driver still says that all of it is free.
SHORT_OF_MEMORY = "import torch; torch.cuda.set_per_process_memory_fraction(0.02)" + RUN
# The first process looks up what no table has, in the middle of its work.
POISONED = (
    """
import os, torch
from jobs.cli import RESTARTED
from pipeline.engine.chatterbox import waveform_stage
waveforms, calls = waveform_stage.WaveformStage._compute, []
def breaking(speaker, rows):
    calls.append(rows)
    if len(calls) == 4 and RESTARTED not in os.environ:
        torch.zeros(5, device="cuda")[torch.tensor([7], device="cuda")].sum().item()
    return waveforms(speaker, rows)
waveform_stage.WaveformStage._compute = breaking
"""
    + RUN
)


@pytest.fixture
def generate(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(TEXT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}

    def run(code: str) -> subprocess.CompletedProcess[str]:
        options = ["book=story.txt", "engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "device=cuda"]
        command = [sys.executable, "-c", code, *options, "wandb.mode=disabled"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def test_a_job_that_runs_out_of_memory_takes_half_as_many_at_a_time_and_loses_nothing(generate):
    ended = generate(SHORT_OF_MEMORY)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "out of memory on cuda:0: from here on 128 utterances at a time" in ended.stdout
    assert len(rows_of(Path("outputs/story/metadata.parquet"))) == 1200


def test_a_poisoned_context_is_left_behind_and_the_job_ends(generate):
    ended = generate(POISONED)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "answers no more (CUDA error: device-side assert triggered" in ended.stdout
    left = re.search(r"1200 utterances, (\d+) to render.*answers no more.* (\d+) to render", ended.stdout, re.DOTALL)
    assert left and int(left[1]) == 1200 and 0 < int(left[2]) < 1200
    assert len(rows_of(Path("outputs/story/metadata.parquet"))) == 1200
