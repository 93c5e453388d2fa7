"""Killed, stopped and cut off at exact moments of its own doing, then run again: the same as if nothing had happened.

The moments are those of `moments.py`; which are chosen is seeded. A handful runs always, all of them as `long`.
"""

import json
import os
import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from ..conftest import STORY, UNMARKED, rows_of
from .processes import GENERATE, environment, in_group, until

MOMENTS = Path(__file__).with_name("moments.py")
STAGES = {  # a moment's stage is the first whose pattern its name has
    "writing": r"wavs/",
    "journal": r"fsync .*\.jsonl|row ",
    "merge": r"metadata|merge\.lock|failed\.parquet",
    "rendering": r"verdict|runs/",
    "reading": "",
}
ESPEAK = ("engine=espeak", "check.max_pause_s=0.30", "max_failures=9")  # some of the story's utterances fail
TINY = ("engine.checkpoint=stand-in-tiny", "device=cpu")
OUT = Path("outputs/story")


def start(
    signum: int, name: str, occurrence: int, *options: str, to: str = "group"
) -> subprocess.CompletedProcess[str]:
    """The main job as a process of its own; `to` (see `moments.py`) gets `signum` at the moment of that name."""
    Path("moments.txt").unlink(missing_ok=True)
    moment = dict(signum=int(signum), name=name, occurrence=occurrence, listing="moments.txt", to=to)
    job = subprocess.Popen(
        [*GENERATE, "book=story.txt", "wandb.mode=disabled", *options],
        env=environment(MOMENTS, MOMENT=json.dumps(moment)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, err = job.communicate(timeout=600)
    until(lambda: not in_group(job.pid))
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def facts(out: Path) -> tuple[list[dict], dict[str, bytes]]:
    """All that must not depend on what happened: every row but its clock, every WAV's bytes."""
    tables = [path for path in (out / "metadata.parquet", out / "failed.parquet") if path.exists()]
    rows = [{k: v for k, v in row.items() if k != "created_at"} for path in tables for row in rows_of(path)]
    return rows, {path.name: path.read_bytes() for path in out.glob("wavs/**/*") if path.is_file()}


class Undisturbed:
    """One run to compare with: its moments by stage, and what came out."""

    def __init__(self, folder: Path, options: tuple[str, ...], text: str) -> None:
        self.options, self.text = options, text
        folder.mkdir()
        before = os.getcwd()
        os.chdir(folder)
        try:
            Path("story.txt").write_text(text, encoding="utf-8")
            ended = start(0, "", 0, *options)
            assert ended.returncode == 0, ended.stderr
            self.moments = Path("moments.txt").read_text().splitlines()
            self.facts = facts(OUT)
        finally:
            os.chdir(before)

    def of(self, stage: str, count: int) -> list[int]:
        """`count` seeded moments of a stage."""
        stages = [next(stage for stage, pattern in STAGES.items() if re.search(pattern, name)) for name in self.moments]
        return random.Random(stage).sample([i for i, found in enumerate(stages) if found == stage], count)


@pytest.fixture(scope="module")
def espeak(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("espeak") / "run", ESPEAK, STORY)


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory):
    return Undisturbed(tmp_path_factory.mktemp("unmarked") / "run", (*ESPEAK, UNMARKED), STORY)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, cache):
    text = "CHAPTER I.\n\nNobody came.\n\nNobody came to the door of the old house.\n\nNo light moved."
    return Undisturbed(tmp_path_factory.mktemp("tiny") / "run", (*TINY, f"engine.cache={cache}"), text)


@pytest.fixture
def survives(job, tmp_path):
    """`survives(undisturbed, signum, moment)`: hit at that moment and run again, it is as if nothing had happened."""

    def check(undisturbed: Undisturbed, signum: int, moment: int) -> None:
        (tmp_path / "story.txt").write_text(undisturbed.text, encoding="utf-8")
        name = undisturbed.moments[moment]
        ended = start(signum, name, undisturbed.moments[:moment].count(name), *undisturbed.options)
        if signum == signal.SIGKILL:
            assert ended.returncode == -signal.SIGKILL, name
            lose_what_was_not_synced(name)
        else:
            assert ended.returncode == 128 + signum and "Traceback" not in ended.stderr, (name, ended.stderr)
            assert not list(tmp_path.rglob("*.tmp")), name
        again = job("generate", "book=story.txt", "wandb.mode=disabled", *undisturbed.options)
        assert again.code == 0 and "Traceback" not in again.err, (name, again.err)
        assert facts(OUT) == undisturbed.facts, name
        assert not list(tmp_path.rglob("*.tmp")), name
        allowed = len(rows_of(OUT / "failed.parquet")) if (OUT / "failed.parquet").exists() else 0
        assert job("audit", f"run={OUT}", "watermark=none", f"max_failures={allowed}").code == 0, name

    return check


def lose_what_was_not_synced(name: str) -> None:
    """A power cut, unlike a kill, also takes part of what was written and not yet synced.

    It takes nothing where the moment did not come again: at the process's end all is synced.
    """
    found = re.match(r"before fsync (.*\.(?:jsonl|tmp))$", name)
    if found and Path("moments.txt").read_text():
        data = Path(found[1]).read_bytes()
        Path(found[1]).write_bytes(data[: len(data) - min(37, len(data))])


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_any_stage_loses_nothing(survives, unmarked, stage):
    (moment,) = unmarked.of(stage, 1)
    survives(unmarked, signal.SIGKILL, moment)


@pytest.mark.long
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_of_25_moments_loses_nothing(survives, espeak, stage, number):
    survives(espeak, signal.SIGKILL, espeak.of(stage, 6)[1 + number])


@pytest.mark.long
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_of_the_model_at_any_of_10_moments_changes_no_bit(survives, tiny, stage, number):
    survives(tiny, signal.SIGKILL, tiny.of(stage, 3)[1 + number])


@pytest.mark.parametrize("stage, signum", [("reading", signal.SIGINT), ("writing", signal.SIGTERM)])
def test_a_signal_ends_with_its_code_and_the_same_command_completes_the_run(survives, unmarked, stage, signum):
    survives(unmarked, signum, unmarked.of(stage, 1)[0])


@pytest.mark.long
@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("stage", STAGES)
def test_sigterm_at_any_of_10_moments_ends_with_143_and_the_same_command_completes_the_run(
    survives, espeak, stage, number
):
    survives(espeak, signal.SIGTERM, espeak.of(stage, 3)[1 + number])


def test_a_wav_is_durable_under_its_name_before_its_row_is_written(unmarked):
    """fsync of the file, rename, fsync of the folder, then the row: what a power cut leaves is whole."""
    names = unmarked.moments
    wavs = [name.split()[-1] for name in names if re.fullmatch(r"os\.rename .*\.wav", name)]
    assert len(wavs) == len(unmarked.facts[1])
    for wav in wavs:
        folder, id = os.path.dirname(wav), os.path.basename(wav).removesuffix(".wav")
        renamed, row = names.index(f"os.rename {wav}"), names.index(f"before row {id} ok")
        assert names.index(f"after fsync {wav}.tmp") < renamed
        assert f"after fsync {folder}" in names[renamed:row]
        durable = names[row : names.index(f"after row {id} ok")]
        assert "after fsync outputs/story/journal/0-of-1.jsonl" in durable
