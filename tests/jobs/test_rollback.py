"""Too much of a window is tried again: the rest of the run is safer, also after a kill, and other runs are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import UNMARKED, rows_of

WINDOW = 50
BF16, FP32 = "t3=bf16 flow=fp32 vocoder=fp32 voice_encoder=fp32", "fp32"
# The decoder's numbers go wrong for one utterance of the first window, in BF16; the process dies in the second window.
BROKEN = """
import os, sys, torch
from pipeline.device import dtypes
from pipeline.engine.chatterbox import token_stage
from pipeline.run.writer import Writer
from dataclasses import replace
from jobs.generate import GenerateConfig, generate
from jobs.cli import main

dtypes.cpu_has_bf16 = lambda: True  # one that is not quick at it computes the same
decode, keep = token_stage.decode, Writer.keep

def broken(decoder, *rest):
    for ended in decode(decoder, *rest):
        half = decoder.weights.dtype != torch.float32
        yield [replace(one, finite=not (half and one.prompt.text == odd_text(decoder))) for one in ended]

texts = {}
def odd_text(decoder):
    return texts["odd"]

prompt_of = token_stage.TokenStage.prompt_of
def noticed(self, request):
    prompt = prompt_of(self, request)
    if request.utterance.index == 3:
        texts["odd"] = prompt.text
    return prompt

def dying(writer, kept):
    rows = keep(writer, kept)
    if kept.task.planned.utterance.index >= die_at:
        os._exit(9)
    return rows

token_stage.decode, token_stage.TokenStage.prompt_of, Writer.keep = broken, noticed, dying
die_at = int(sys.argv.pop(1))
main("generate", GenerateConfig, generate)
"""


@pytest.fixture
def run(tmp_path, cache):
    """`run(die_at, option, ...)`: the job on 60 sentences, in a process that dies at utterance `die_at`."""
    sentences = [f"Nobody came up the stair in year {number}." for number in range(60)]
    (tmp_path / "b.txt").write_text("\n\n".join(sentences))

    def run(die_at, *more):
        options = ["engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "engine.flow_steps=1", "book=b.txt"]
        options += [
            "precision.t3=bf16",
            "wandb.mode=disabled",
            f"plan.window={WINDOW}",
            "engine.max_tokens=25",
            UNMARKED,
        ]
        command = [sys.executable, "-c", BROKEN, str(die_at), *options, *more]
        paths = os.pathsep.join([os.getcwd(), *sys.path])
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | dict(PYTHONPATH=paths), capture_output=True, text=True
        )

    return run


def journal(folder: Path) -> tuple[list[dict], list[dict]]:
    """Rows of utterances, and those of rollbacks."""
    lines = (folder / "outputs/b/journal/0-of-1.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["id"]], [row for row in rows if not row["id"]]


pytestmark = pytest.mark.long


def test_two_percent_of_a_window_are_enough_also_for_what_comes_after_a_kill(run, tmp_path):
    killed = run(54)
    assert killed.returncode == 9, killed.stderr
    rows, notes = journal(tmp_path)
    first = {row["index"]: row["precision"] for row in rows if row["index"] < WINDOW}
    assert first.pop(3) == FP32 and set(first.values()) == {BF16}
    assert {row["precision"] for row in rows if row["index"] >= WINDOW} <= {FP32}
    assert [set(note["precision"].values()) for note in notes] == [{"fp32"}]
    told = "1 of 50 utterances were tried again, more than check.rollback_share=0.01: from here on fp32 in place of"
    assert told in killed.stdout

    resumed = run(1000)
    assert resumed.returncode == 0, resumed.stderr
    assert "an earlier run went over to precision fp32, and so does this one" in resumed.stdout
    rows = rows_of(tmp_path / "outputs/b/metadata.parquet")
    assert len(rows) == 60 and {row["precision"] for row in rows[WINDOW:]} == {FP32}
    assert all(len(row["attempts"]) == 1 for row in rows[WINDOW:])


def test_less_than_the_share_changes_nothing_and_neither_do_other_runs(run, tmp_path):
    ended = run(1000, "check.rollback_share=0.02")
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(tmp_path / "outputs/b/metadata.parquet")
    assert [row["index"] for row in rows if row["precision"] == FP32] == [3]
    assert journal(tmp_path)[1] == []
