"""Run again, edited, damaged, cut into shards: nothing is lost and nothing is rendered twice."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_shared
from pipeline.store.index import read_index
from pipeline.store.journal import Journal
from pipeline.store.plan_snapshot import read_snapshot

from ..conftest import STORY, rows_of
from .test_generate import OUT, rendered_anew, wav_bytes, written


def test_the_same_command_again_renders_nothing(draft):
    draft()
    before, rows = written(), rows_of(OUT / "metadata.parquet")
    again = draft()
    assert again.code == 0 and "0 to render" in again.out
    assert rendered_anew(before) == set() and rows_of(OUT / "metadata.parquet") == rows


def test_a_changed_sentence_renders_that_utterance_and_no_other(draft, story):
    draft()
    before = written()
    story.write_text(STORY.replace("a small, dry cough", "a small, wet cough"), encoding="utf-8")
    draft()
    assert rendered_anew(before) == {
        next(r["id"] for r in rows_of(OUT / "metadata.parquet") if "wet" in r["text"]) + ".wav"
    }


def test_an_inserted_paragraph_renders_itself_and_the_rest_of_its_chapter(draft, story):
    draft()
    before = written()
    story.write_text(STORY.replace("* * *", "The house waited.\n\n* * *"), encoding="utf-8")
    draft()
    rows = rows_of(OUT / "metadata.parquet")
    first = next(row["index"] for row in rows if row["text"] == "The house waited.")
    assert rendered_anew(before) == {f"{r['id']}.wav" for r in rows if r["chapter"] == 1 and r["index"] >= first}


@pytest.mark.parametrize("change", ["engine.rate_wpm=200", "engine.voice=en-us", "sampling.temperature=0.7", "seed=1"])
def test_a_changed_voice_or_parameter_renders_all(draft, change):
    draft()
    before = written()
    draft(change)
    assert rendered_anew(before) == set(before)


@pytest.mark.long
def test_a_changed_recording_renders_all_with_the_model_too(job, story, cache):
    story.write_text("Nobody came.\n\nNobody came to the door of the old house.")
    model = ("generate", "book=story.txt", "engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "device=cpu")
    assert job(*model, "wandb.mode=disabled").code == 0
    for change in ("voice=narrator", "sampling.temperature=0.7"):
        before, bytes_before = written(), wav_bytes()
        assert job(*model, "wandb.mode=disabled", change).code == 0
        assert rendered_anew(before) == set(before) and not set(wav_bytes().values()) & set(bytes_before.values())


def hashes_hold() -> bool:
    rows = rows_of(OUT / "metadata.parquet")
    return all(row["audio_sha256"] == hashlib.sha256((OUT / row["file_name"]).read_bytes()).hexdigest() for row in rows)


def test_a_parameter_changed_and_changed_back_renders_all_again(draft):
    draft()
    first = wav_bytes()
    draft("engine.rate_wpm=250")
    assert wav_bytes() != first and hashes_hold()
    assert draft().code == 0 and wav_bytes() == first and hashes_hold()


def test_a_kill_between_a_wav_and_its_row_leaves_no_row_that_vouches_for_it(draft, monkeypatch):
    draft()
    first = wav_bytes()

    append = Journal.append

    def killed(journal, row):
        if row["status"] == "ok":
            raise SystemExit(9)
        append(journal, row)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        assert draft("engine.rate_wpm=250").code == 9
    assert wav_bytes() != first
    assert draft().code == 0 and wav_bytes() == first and hashes_hold()


def test_no_row_vouches_for_a_lost_wav_while_another_takes_its_place(draft, monkeypatch):
    draft()
    lost = OUT / "wavs" / "001" / "story-001-00000.wav"
    lost.unlink()
    append = Journal.append

    def killed(journal, row):
        if row["status"] == "ok":
            raise SystemExit(9)
        append(journal, row)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        assert draft("engine.rate_wpm=250", "limit=1").code == 9
    assert read_index(RunFolder(OUT))[lost.stem].status == "replaced"


def test_offsets_and_pauses_follow_an_edit_that_renders_nothing_there(draft, story):
    draft()
    edited = STORY.replace("and listened", "and listened for a while")
    story.write_text(edited, encoding="utf-8")
    assert "1 to render" in draft("text.pause_sentence_s=5").out
    rows = rows_of(OUT / "metadata.parquet")
    assert all(row["text"] == " ".join(edited[row["char_start"] : row["char_end"]].split()) for row in rows)


def test_another_book_of_the_same_name_does_not_overwrite_the_first(draft, job, tmp_path):
    draft()
    before = wav_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "story.txt").write_text("Quite another tale.\n\nIt has nothing to do with the first one.")
    ended = job("generate", "book=other/story.txt", "engine=espeak", "wandb.mode=disabled")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "holds the speech of" in ended.err
    assert wav_bytes() == before
    (tmp_path / "story.txt").rename(tmp_path / "other" / "story.txt")
    moved = job("generate", "book=other/story.txt", "engine=espeak", "wandb.mode=disabled")
    assert moved.code == 0 and "0 to render" in moved.out


def test_a_run_cut_otherwise_is_refused_while_the_first_goes_on(draft):
    draft()
    folder = RunFolder(OUT)
    cut = dict(num_shards=1, chapters=None, limit=None)
    with lock_shared(folder, read_snapshot(folder).digest, cut, lambda: None):
        assert draft().code == 0
        for more in ("num_shards=2", "limit=1", "chapters=1"):
            ended = draft(more)
            assert ended.code == 2 and "in use by a run with num_shards=1 chapters=None limit=None" in ended.err
        ended = draft("engine.rate_wpm=200")
        assert ended.code == 2 and "in use by a run with other options or another edition" in ended.err
    assert draft("num_shards=2").code == 0


def test_a_wav_with_one_bit_flipped_is_told_and_rendered_again(draft):
    draft()
    before = wav_bytes()
    path = next(OUT.glob("wavs/002/*.wav"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    times = written()
    ended = draft()
    assert ended.code == 0 and f"{path} is not what was written; it will be rendered again" in ended.out
    assert rendered_anew(times) == {path.name} and wav_bytes() == before


def test_a_deleted_wav_and_a_torn_journal_line_are_rendered_again(draft):
    draft()
    before = wav_bytes()
    journal = OUT / "journal" / "0-of-1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = json.loads(lines[-1])["id"]
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    lost = next(OUT.glob("wavs/001/*.wav"))
    lost.unlink()
    times = written()
    assert draft().code == 0
    assert rendered_anew(times) == {lost.name, f"{torn}.wav"} and wav_bytes() == before
    assert len(rows_of(OUT / "metadata.parquet")) == len(lines)


def test_a_journal_cut_in_the_middle_costs_what_is_cut_off(draft):
    draft()
    before, journal = wav_bytes(), OUT / "journal" / "0-of-1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines)[: len(b"".join(lines[:3])) + 10])
    again = draft()
    assert again.code == 0 and f"{len(lines) - 3} to render" in again.out and wav_bytes() == before


def test_a_clock_that_jumps_back_changes_nothing(draft):
    draft()
    for path in OUT.rglob("*"):
        os.utime(path, (4e9, 4e9))
    draft("engine.rate_wpm=250")
    before = wav_bytes()
    for path in OUT.rglob("*"):
        os.utime(path, (1e9, 1e9))
    again = draft("engine.rate_wpm=250")
    assert "0 to render" in again.out and wav_bytes() == before


def test_shards_together_are_the_whole_run(draft):
    draft("out=whole")
    for shard in (1, 0):
        assert draft("out=parts", f"shard={shard}", "num_shards=2").code == 0
    assert wav_bytes(Path("parts")) == wav_bytes(Path("whole"))
    volatile = ("created_at",)
    whole, parts = (
        [{k: v for k, v in row.items() if k not in volatile} for row in rows_of(Path(out) / "metadata.parquet")]
        for out in ("whole", "parts")
    )
    assert whole == parts


def test_limit_and_chapters_render_a_part_that_a_later_run_completes(draft):
    assert draft("limit=2").code == 0 and len(rows_of(OUT / "metadata.parquet")) == 2
    assert draft("chapters=2").code == 0
    before = written()
    assert draft().code == 0
    assert not rendered_anew(before) & set(before)
    assert len(rows_of(OUT / "metadata.parquet")) == len(written())


def test_a_run_in_use_by_another_process_is_one_line_and_exit_2(draft):
    draft("limit=1")
    holder = Journal(OUT / "journal" / "0-of-1.jsonl", 1)
    ended = draft()
    holder.close()
    assert ended.code == 2 and ended.err.count("\n") == 1 and "in use" in ended.err
    assert draft().code == 0
