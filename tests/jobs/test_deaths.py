"""A worker killed at seeded moments: the job ends as if undisturbed. A supervisor killed: its worker dies with it."""

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest

from .processes import GENERATE, environment, in_group, until
from .test_faults import ESPEAK, MOMENTS, OUT, Undisturbed, facts, start, unmarked  # noqa: F401  (a fixture)

HOW = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]
NAMES = {"SIGKILL": "was killed (SIGKILL", "SIGSEGV": "had a segmentation fault", "SIGABRT": "was aborted"}


def seeded(number: int, count: int) -> int:
    """The moment of that number, of `count` of them; of all kinds alike."""
    return random.Random(number).randrange(count)


@pytest.fixture
def story(tmp_path, monkeypatch, unmarked):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(unmarked.text, encoding="utf-8")
    return unmarked


@pytest.mark.parametrize("number", [n if n == 2 else pytest.param(n, marks=pytest.mark.long) for n in range(20)])
def test_a_worker_killed_at_any_of_20_moments_changes_no_row_and_no_byte(story: Undisturbed, number):
    signum, moment = HOW[number % 3], seeded(number, len(story.moments))
    name = story.moments[moment]
    ended = start(signum, name, story.moments[:moment].count(name), *story.options, to="worker")
    assert ended.returncode == 0 and ended.stderr == "", name
    assert ended.stdout.count("the worker ") == 1 and f"the worker {NAMES[signum.name]}" in ended.stdout, name
    assert facts(OUT) == story.facts, name
    assert not list(Path.cwd().rglob("*.tmp")), name


@pytest.mark.parametrize("number", [n if n == 1 else pytest.param(n, marks=pytest.mark.long) for n in range(8)])
def test_a_supervisor_killed_at_any_of_8_moments_takes_its_worker_along_and_the_same_command_goes_on(story, number):
    moment = seeded(100 + number, len(story.moments))
    name = story.moments[moment]
    group = subprocess.Popen(
        [*GENERATE, "book=story.txt", "wandb.mode=disabled", *story.options],
        env=environment(
            MOMENTS,
            MOMENT=json.dumps(
                dict(
                    signum=9,
                    name=name,
                    occurrence=story.moments[:moment].count(name),
                    listing="moments.txt",
                    to="supervisor",
                )
            ),
        ),
        start_new_session=True,
    )
    assert group.wait() == -signal.SIGKILL, name
    until(lambda: not in_group(group.pid), 10)
    left = {path: path.stat().st_size for path in OUT.rglob("*.jsonl")}
    again = start(0, "", 0, *story.options)
    assert again.returncode == 0, again.stderr
    assert facts(OUT) == story.facts, name
    assert all(path.stat().st_size >= size for path, size in left.items())
