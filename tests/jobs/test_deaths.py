"""A worker killed at seeded moments: the job ends as if undisturbed. A supervisor killed: its worker dies with it."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .processes import GENERATE, environment, in_group, until
from .test_faults import MOMENTS, OUT, STAGES, Undisturbed, facts, start, unmarked  # noqa: F401  (a fixture)
from .test_signals import rows_written, wait_for
from .test_signals import start as launch  # noqa: F401  (a fixture)

HOW = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]
NAMES = {"SIGKILL": "was killed (SIGKILL", "SIGSEGV": "had a segmentation fault", "SIGABRT": "was aborted"}


@pytest.fixture
def story(tmp_path, monkeypatch, unmarked):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(unmarked.text, encoding="utf-8")
    return unmarked


# Four moments of each stage; one of all is quick enough to run always.
TWENTY = [
    (stage, n) if (stage, n) == ("writing", 0) else pytest.param(stage, n, marks=pytest.mark.long)
    for stage in STAGES
    for n in range(4)
]


@pytest.mark.parametrize("stage, number", TWENTY)
def test_a_worker_killed_at_any_of_20_moments_changes_no_row_and_no_byte(story: Undisturbed, stage, number):
    signum, moment = HOW[(number + len(stage)) % 3], story.of(stage, 4)[number]
    name = story.moments[moment]
    ended = start(signum, name, story.moments[:moment].count(name), *story.options, to="worker")
    assert ended.returncode == 0 and ended.stderr == "", name
    assert ended.stdout.count("the worker ") == 1 and f"the worker {NAMES[signum.name]}" in ended.stdout, name
    assert facts(OUT) == story.facts, name
    assert not list(Path.cwd().rglob("*.tmp")), name


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_supervisor_killed_in_any_stage_takes_its_worker_along_and_the_same_command_goes_on(story, stage):
    (moment,) = story.of(stage, 1)
    name = story.moments[moment]
    told = dict(
        signum=9, name=name, occurrence=story.moments[:moment].count(name), listing="moments.txt", to="supervisor"
    )
    group = subprocess.Popen(
        [*GENERATE, "book=story.txt", "wandb.mode=disabled", *story.options],
        env=environment(MOMENTS, MOMENT=json.dumps(told)),
        start_new_session=True,
    )
    assert group.wait() == -signal.SIGKILL, name
    until(lambda: not in_group(group.pid), 10)
    left = {path: path.stat().st_size for path in OUT.rglob("*.jsonl")}
    again = start(0, "", 0, *story.options)
    assert again.returncode == 0, again.stderr
    assert facts(OUT) == story.facts, name
    assert all(path.stat().st_size >= size for path, size in left.items())


# An utterance takes half a second, so that a worker that lived on would be seen to write.
SLOW = """
import time
from pipeline.engine import registry
from pipeline.engine.espeak import EspeakEngine
class Slow(EspeakEngine):
    def synthesize(self, requests, stopping):
        for speech in super().synthesize(requests, stopping):
            yield speech
            time.sleep(0.5)
registry.ENGINES["espeak"] = lambda config: Slow(config.engine)
"""


def test_a_supervisor_killed_alone_leaves_no_worker_that_writes_on(launch):  # noqa: F811
    job = launch(code=SLOW)
    wait_for(job, lambda: rows_written() >= 3)
    job.kill()
    job.wait()
    until(lambda: not in_group(job.pid), 5)
    written = rows_written()
    assert 3 <= written < 25
    time.sleep(1.2)
    assert rows_written() == written
