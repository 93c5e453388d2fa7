"""The main job on a GPU that fails for real: out of memory, and a kernel that takes the whole context with it."""

import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from ..conftest import rows_of
from .processes import GENERATE, environment

pytestmark = pytest.mark.gpu
TEXT = "".join(f"This is sentence number {n}, and it is followed by another one.\n\n" for n in range(1200))
# A fiftieth of the card, of which the driver still says that all of it is free.
SHORT_OF_MEMORY = "import torch; torch.cuda.set_per_process_memory_fraction(0.02)"
# The first worker looks up what no table has, in the middle of its work.
POISONED = """
import torch
from pathlib import Path
from pipeline.engine.chatterbox import waveform_stage
waveforms, calls = waveform_stage.WaveformStage._compute, []
def breaking(*batch):
    calls.append(batch)
    if len(calls) >= 4 and any(Path("outputs").rglob("*.wav")) and not Path("poisoned").exists():
        Path("poisoned").touch()
        torch.zeros(5, device="cuda")[torch.tensor([7], device="cuda")].sum().item()
    return waveforms(*batch)
waveform_stage.WaveformStage._compute = breaking
"""
# The first worker dies so in the middle of its work.
DYING = """
import os, signal
from pathlib import Path
from pipeline.engine.chatterbox import waveform_stage
waveforms, calls = waveform_stage.WaveformStage._compute, []
def breaking(*batch):
    calls.append(batch)
    if len(calls) == {call} and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), {signum})
    return waveforms(*batch)
waveform_stage.WaveformStage._compute = breaking
"""


@pytest.fixture
def generate(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    Path("story.txt").write_text(TEXT)

    def run(code: str) -> subprocess.CompletedProcess[str]:
        Path("in_worker.py").write_text(code)
        options = ["book=story.txt", "engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "device=cuda"]
        command = [*GENERATE, *options, "wandb.mode=disabled"]
        return subprocess.run(command, env=environment(tmp_path / "in_worker.py"), capture_output=True, text=True)

    return run


def test_a_job_that_runs_out_of_memory_takes_half_as_many_at_a_time_and_loses_nothing(generate):
    ended = generate(SHORT_OF_MEMORY)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "out of memory on cuda:0: from here on 128 utterances at a time" in ended.stdout
    assert len(rows_of(Path("outputs/story/metadata.parquet"))) == 1200


@pytest.mark.parametrize("attempt", range(5))
def test_a_poisoned_context_is_left_behind_and_the_job_ends(generate, attempt):
    """Whether the worker sees that its device is lost, or a finaliser of a dead tensor aborts it before."""
    ended = generate(POISONED)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("the worker ") == 1 and "a new worker goes on" in ended.stdout
    assert "answers no more (CUDA error: device-side assert triggered" in ended.stdout or "SIGABRT" in ended.stdout
    left = re.search(r"1200 utterances, (\d+) to render.*the worker .* (\d+) to render", ended.stdout, re.DOTALL)
    assert left and int(left[1]) == 1200 and 0 < int(left[2]) < 1200
    assert len(rows_of(Path("outputs/story/metadata.parquet"))) == 1200


@pytest.mark.parametrize("number", range(10))
def test_a_worker_killed_on_a_card_at_any_of_10_moments_is_replaced(generate, number):
    signum = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[number % 3]
    ended = generate(DYING.format(call=random.Random(number).randint(1, 6), signum=int(signum)))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("the worker ") == 1 and signum.name in ended.stdout
    rows = rows_of(Path("outputs/story/metadata.parquet"))
    assert len(rows) == 1200 and {row["status"] for row in rows} == {"ok"}
