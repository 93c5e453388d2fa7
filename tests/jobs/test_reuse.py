"""Speech is taken over by its key: what moved is not rendered again, whatever happens while it moves."""

import errno
import hashlib
import os
import random
import re
import signal
from pathlib import Path

import pytest

from pipeline.store import RunFolder, reuse
from pipeline.store.index import read_index
from pipeline.store.journal import decode

from ..conftest import STORY, UNMARKED, rows_of
from .test_faults import lose_what_was_not_synced, start
from .test_generate import OUT, wav_bytes

NOVEL = "\n\n".join(
    [
        "# One",
        *(f"This is sentence {n} of the first part." for n in range(3)),
        "Two",  # a heading that is missed
        *(f"This is sentence {n} of the second part." for n in range(3)),
        "# Three",
        *(f"This is sentence {n} of the third part." for n in range(3)),
    ]
)
MENDED = NOVEL.replace("\n\nTwo\n\n", "\n\n# Two\n\n")


@pytest.fixture
def speak(job, tmp_path):
    """`speak(text)`: the main job with the draft voice on that text, unmarked."""

    def run(text: str, *more: str):
        (tmp_path / "story.txt").write_text(text, encoding="utf-8")
        return job("generate", "book=story.txt", "engine=espeak", "wandb.mode=disabled", UNMARKED, *more)

    return run


def rows() -> dict[str, dict]:
    return {row["id"]: row for row in rows_of(OUT / "metadata.parquet")}


def assert_whole(job) -> None:
    """Each WAV is what its row says, the audit finds nothing, and nothing is left over."""
    for row in rows().values():
        assert hashlib.sha256((OUT / row["file_name"]).read_bytes()).hexdigest() == row["audio_sha256"]
    audited = job("audit", f"run={OUT}")
    assert audited.code == 0, audited.out
    assert not (OUT / "reuse").exists() and not list(OUT.rglob("*.tmp"))


def test_a_heading_that_was_missed_and_is_mended_renders_nothing_that_is_spoken_as_before(speak, job):
    assert speak(NOVEL).code == 0
    before = {row["spoken_text"]: row for row in rows().values()}
    ended = speak(MENDED)
    after = rows()
    new = [row for row in after.values() if row["spoken_text"] not in before]
    assert ended.code == 0 and f"{len(new)} to render" in ended.out and len(new) == 0
    assert {row["chapter"] for row in after.values()} == {1, 2, 3}
    for row in after.values():
        then = before[row["spoken_text"]]
        changed = ("id", "file_name", "chapter", "chapter_title", "index", "paragraph", "char_start", "char_end")
        changed += ("pause_after_s", "taken_from", "text")
        assert {name: row[name] for name in row if name not in changed} == {
            n: then[n] for n in then if n not in changed
        }
        assert row["taken_from"] == ("" if row["id"] == then["id"] else then["id"])
    assert_whole(job)
    assert "0 to render" in speak(MENDED).out
    back = speak(NOVEL)  # ids trade places once more
    assert "0 to render" in back.out and {row["taken_from"] for row in rows().values()} == {""}
    assert_whole(job)


@pytest.mark.parametrize("where", ["* * *", "CHAPTER II.", '"Oh!"'])
def test_an_inserted_paragraph_renders_itself_alone(speak, job, where):
    speak(STORY)
    ended = speak(STORY.replace(where, f"The house waited.\n\n{where}"))
    assert ended.code == 0 and "1 to render" in ended.out
    (new,) = [row for row in rows().values() if row["text"] == "The house waited."]
    assert new["taken_from"] == ""
    assert_whole(job)


def test_what_is_taken_over_is_no_second_copy_of_the_bytes(speak):
    speak(NOVEL)
    inodes = {path.stat().st_ino for path in OUT.glob("wavs/*/*.wav")}
    speak(MENDED)
    assert {path.stat().st_ino for path in OUT.glob("wavs/*/*.wav")} == inodes


def test_without_hard_links_it_is_copied(speak, job, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    speak(NOVEL)
    monkeypatch.setattr(reuse.os, "link", refuse)
    assert "0 to render" in speak(MENDED).out
    assert_whole(job)


def test_a_sentence_inserted_before_the_same_one_takes_its_speech_and_the_later_one_is_rendered(speak, job):
    """The one exception that docs/promises.md states: the key counts how often a text came before."""
    speak("CHAPTER I.\n\nIt was night.\n\nCHAPTER II.\n\nNobody came.")
    ended = speak("CHAPTER I.\n\nNobody came.\n\nIt was night.\n\nCHAPTER II.\n\nNobody came.")
    assert ended.code == 0 and "1 to render" in ended.out
    first, second = [row for row in rows().values() if row["text"] == "Nobody came."]
    assert first["taken_from"] == second["id"] and second["taken_from"] == ""
    assert_whole(job)


def test_speech_that_was_changed_on_disk_is_not_taken_over(speak, job):
    speak(NOVEL)
    moved = next(row for row in rows().values() if row["text"].endswith("2 of the third part."))
    path = OUT / moved["file_name"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ended = speak(MENDED)
    assert ended.code == 0 and "1 to render" in ended.out
    assert_moved_aside = job("audit", f"run={OUT}", "fix=true")
    assert assert_moved_aside.code == 0 and "0 to render" in speak(MENDED).out


def test_another_voice_or_parameter_takes_nothing_over(speak):
    speak(NOVEL)
    count = len(rows())
    assert f"{count} to render" in speak(MENDED, "engine.rate_wpm=200").out


def test_speech_of_a_failed_utterance_is_not_taken_over(speak):
    strict = ("check.max_chars_per_second=1", "check.too_long_base_s=0", "check.too_long_per_word_s=0.01")
    assert speak(NOVEL, *strict, "max_failures=99").code == 0
    count = len(rows_of(OUT / "failed.parquet"))
    assert count and f"{count} to render" in speak(MENDED).out


def test_a_shard_takes_over_for_all_of_them_and_a_limit_loses_nothing(speak, job):
    speak(NOVEL)
    count = len(rows())
    assert "0 to render" in speak(MENDED, "limit=2").out and len(rows()) == count
    assert "0 to render" in speak(NOVEL, "shard=1", "num_shards=2").out and len(rows()) == count
    assert_whole(job)


MOMENTS = 14


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The moments of a take-over, and what comes of it undisturbed."""
    folder, before = tmp_path_factory.mktemp("moved"), os.getcwd()
    os.chdir(folder)
    try:
        Path("story.txt").write_text(NOVEL)
        assert start(0, "", 0, "engine=espeak", UNMARKED).returncode == 0
        Path("story.txt").write_text(MENDED)
        assert start(0, "", 0, "engine=espeak", UNMARKED).returncode == 0
        names = Path("moments.txt").read_text().splitlines()
        return names, facts()
    finally:
        os.chdir(before)


def facts():
    return [{k: v for k, v in row.items() if k != "created_at"} for row in rows().values()], wav_bytes()


def chosen(names: list[str]) -> list[int]:
    """Seeded moments of a take-over: those that name `reuse/`, a WAV, or a row."""
    of_it = [i for i, name in enumerate(names) if re.search(r"reuse|wavs/|row |\.jsonl", name)]
    return sorted(random.Random(0).sample(of_it, MOMENTS))


def survive(names, undisturbed, job, tmp_path, signum: int, moment: int) -> None:
    (tmp_path / "story.txt").write_text(NOVEL)
    assert start(0, "", 0, "engine=espeak", UNMARKED).returncode == 0
    before = set(wav_bytes().values())
    Path("moments.txt").unlink()
    (tmp_path / "story.txt").write_text(MENDED)
    name = names[moment]
    ended = start(signum, name, names[:moment].count(name), "engine=espeak", UNMARKED)
    assert ended.returncode in (-signum, 128 + signum), (name, ended.stderr)
    if signum == signal.SIGKILL:
        lose_what_was_not_synced(name)
    assert before <= {path.read_bytes() for path in OUT.rglob("*.wav")}, f"{name}: speech is lost"
    audited = job("audit", f"run={OUT}")
    assert "Traceback" not in audited.err and audited.code in (0, 1), name
    again = job("generate", "book=story.txt", "engine=espeak", "wandb.mode=disabled", UNMARKED)
    assert again.code == 0 and "0 to render" in again.out, (name, again.out)
    assert facts() == undisturbed, name
    assert_whole(job)


@pytest.mark.parametrize("number", [3, 9])
def test_a_kill_in_the_middle_of_a_take_over_renders_nothing_and_loses_nothing(moved, job, tmp_path, number):
    names, undisturbed = moved
    survive(names, undisturbed, job, tmp_path, signal.SIGKILL, chosen(names)[number])


@pytest.mark.long
@pytest.mark.parametrize("number", [n for n in range(MOMENTS) if n not in (3, 9)])
def test_a_kill_at_any_moment_of_a_take_over_renders_nothing_and_loses_nothing(moved, job, tmp_path, number):
    names, undisturbed = moved
    survive(names, undisturbed, job, tmp_path, signal.SIGKILL, chosen(names)[number])


@pytest.mark.long
@pytest.mark.parametrize("number", [1, 6, 11])
def test_sigterm_in_a_take_over_loses_nothing(moved, job, tmp_path, number):
    names, undisturbed = moved
    survive(names, undisturbed, job, tmp_path, signal.SIGTERM, chosen(names)[number])


def test_the_audit_names_a_take_over_that_was_cut_off(speak, job, monkeypatch):
    speak(NOVEL)

    def killed(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(reuse, "_place", killed)
        assert speak(MENDED).code == 9
    ended = job("audit", f"run={OUT}")
    assert ended.code == 1 and "WRONG: speech that waits to be taken over: 8" in ended.out
    assert "story-002-00000 is there, as story-001-00004" in ended.out and "reuse/" not in ended.out
    fixed = job("audit", f"run={OUT}", "fix=true")
    assert "waits to be taken over: 8" in fixed.out and list((OUT / "reuse").iterdir())  # where the next run looks
    assert "0 to render" in speak(MENDED).out
    assert_whole(job)


def test_every_taken_row_is_a_row_of_its_own(speak):
    speak(NOVEL)
    journal = OUT / "journal" / "0-of-1.jsonl"
    before = len(journal.read_bytes().splitlines())
    speak(MENDED)
    lines = [decode(line) for line in journal.read_bytes().splitlines(keepends=True)][before:]
    taken = [row for row in lines if row["status"] == "ok"]
    assert taken and all(row["taken_from"] and row["generation"] == 2 for row in taken)
    replaced = {row["id"] for row in lines if row["status"] == "replaced"}
    assert replaced <= {row["id"] for row in taken}


def test_no_row_of_before_vouches_for_another_wav_under_an_id_that_left_and_came_back(speak, monkeypatch):
    """Three plans: an id leaves, its name goes, and it comes back for other speech while the job is killed."""

    def killed(*_):
        raise SystemExit(9)

    speak("CHAPTER I.\n\nAlpha went.\n\nCHAPTER II.\n\nBeta sat.\n\nGamma ran.")
    assert speak("CHAPTER I.\n\nAlpha went.\n\nBeta sat.\n\nGamma ran.").code == 0
    assert not (OUT / "wavs" / "002" / "story-002-00001.wav").exists()
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "_taken_row", killed)
        assert speak("CHAPTER I.\n\nAlpha went.\n\nCHAPTER II.\n\nGamma ran.\n\nBeta sat.").code == 9
    index = read_index(RunFolder(OUT))
    assert (OUT / "wavs" / "002" / "story-002-00001.wav").exists() and index["story-002-00001"].status == "replaced"


def test_what_stands_in_a_folder_of_that_name_and_is_not_ours_stays(speak, job):
    (OUT / "reuse").mkdir(parents=True)
    (OUT / "reuse" / "thesis.txt").write_text("mine")
    assert speak(NOVEL).code == 0 and "0 to render" in speak(MENDED).out
    assert [path.name for path in (OUT / "reuse").iterdir()] == ["thesis.txt"]
    assert job("audit", f"run={OUT}").code == 0


def test_a_file_in_the_way_of_the_folder_is_one_line_and_exit_2(speak):
    OUT.mkdir(parents=True)
    (OUT / "reuse").write_text("mine")
    ended = speak(NOVEL)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "is in the way" in ended.err
    assert [path.name for path in OUT.iterdir()] == ["reuse"]


def test_an_audit_moves_nothing_aside_that_waits_to_be_taken_over(speak, job, monkeypatch):
    def killed(*_):
        raise SystemExit(9)

    speak(NOVEL)
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "_hold", killed)
        assert speak(MENDED).code == 9
    ended = job("audit", f"run={OUT}", "fix=true")
    assert "waits to be taken over" in ended.out and not list(OUT.glob("aside/*/wavs/*/*.wav"))
    assert "0 to render" in speak(MENDED).out
    assert_whole(job)


def test_speech_that_a_killed_take_over_held_for_another_plan_is_kept_until_an_audit(speak, job, monkeypatch):
    def killed(*_):
        raise SystemExit(9)

    speak(NOVEL)
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "_taken_row", killed)
        assert speak(MENDED).code == 9
    held = {path.name for path in (OUT / "reuse").iterdir()}
    assert speak(MENDED, "engine.rate_wpm=200", "limit=1").code == 0
    assert {path.name for path in (OUT / "reuse").iterdir()} == held
    assert "1 to render" in speak(MENDED).out  # what the slip has overwritten, or less
    assert_whole(job)
