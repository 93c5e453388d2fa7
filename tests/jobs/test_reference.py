"""*Alice*'s first two chapters against those that commit 98b7de7 made: keys, seeds, rows, and each WAV's bytes.

Bytes and tokens are compared where CPU, threads and libraries are those of then; all else everywhere.
"""

import json
from pathlib import Path

import pytest

from .reference import FILE, hashes_of, machine
from .test_alice import ALICE

pytestmark = pytest.mark.skipif(not ALICE.exists(), reason="the shared books are not here")
TINY = ("engine.checkpoint=stand-in-tiny", "device=cpu")


@pytest.fixture
def speak(job):
    def run(*options: str) -> dict[str, list[str]]:
        command = ("generate", f"book={ALICE}", "out=run", "wandb.mode=disabled", "max_failures=999", *options)
        assert job(*command).code == 0
        return hashes_of(Path("run"))

    return run


def assert_as_then(name: str, now: dict[str, list[str]]) -> None:
    kept = json.loads(FILE.read_text())[name]
    same = slice(None) if kept["machine"] == machine() else slice(2)  # key and plan
    assert {id: kept["rows"][id][same] for id in now} == {id: facts[same] for id, facts in now.items()}


@pytest.mark.long
def test_the_draft_voice_says_the_same(speak):
    now = speak("engine=espeak", "chapters=1-2")
    assert len(now) == 144
    assert_as_then("espeak", now)


@pytest.mark.long
def test_the_tiny_stand_in_says_the_same(speak, cache):
    now = speak(*TINY, f"engine.cache={cache}", "chapters=2", "limit=6")
    assert len(now) == 6
    assert_as_then("tiny", now)


@pytest.mark.reference
def test_the_tiny_stand_in_says_the_same_in_two_whole_chapters(speak, cache):
    now = speak(*TINY, f"engine.cache={cache}", "chapters=1-2")
    assert len(now) == 144
    assert_as_then("tiny_whole", now)
