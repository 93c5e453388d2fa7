"""The main job from the command line to the files, with the draft voice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.config import WatermarkConfig
from pipeline.engine.espeak import EspeakEngine
from pipeline.store.schema import NAMES
from pipeline.watermark import build_watermarker

from ..conftest import STORY, rows_of

OUT = Path("outputs/story")


def wav_bytes(out: Path = OUT) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("wavs/*/*.wav")}


def written(out: Path = OUT) -> dict[str, int]:
    """When each WAV was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("wavs/*/*.wav")}


def rendered_anew(before: dict[str, int]) -> set[str]:
    return {name for name, at in written().items() if before.get(name) != at}


def test_a_book_becomes_wavs_and_a_manifest_in_the_order_of_reading(draft):
    assert draft().code == 0
    rows = rows_of(OUT / "metadata.parquet")
    assert list(rows[0]) == list(NAMES)
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert rows[0]["file_name"] == "wavs/001/story-001-00000.wav"
    assert {row["chapter"]: row["chapter_title"] for row in rows} == {
        1: "CHAPTER I. The Door",
        2: "CHAPTER II. The Stair",
    }
    spoken = " ".join(row["text"] for row in rows)
    assert spoken.split() == STORY.replace("* * *", "").split()
    assert not (OUT / "failed.parquet").exists()


def test_each_row_tells_the_truth_about_its_wav(draft):
    draft()
    perth = build_watermarker(WatermarkConfig(), "cpu")
    for row in rows_of(OUT / "metadata.parquet"):
        path = OUT / row["file_name"]
        samples, rate = soundfile.read(path, dtype="float32")
        assert (
            (rate, len(samples))
            == (row["sample_rate"], row["num_samples"])
            == (24_000, round(row["duration"] * 24_000))
        )
        assert row["audio_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["text"] == " ".join(STORY[row["char_start"] : row["char_end"]].split())
        assert row["watermarked"] and perth.score([samples], rate) == pytest.approx([row["watermark_score"]], abs=1e-4)
        assert row["watermark_score"] > 0.5 and row["synthetic"]
        assert row["peak_db"] == pytest.approx(20 * np.log10(np.abs(samples).max()), abs=0.01)
        assert row["status"] == "ok" and len(row["attempts"]) == 1 and row["attempts"][0]["reason"] == ""
        assert json.loads(row["params"])["sampling"] == json.loads(row["attempts"][0]["sampling"])
        assert json.loads(row["params"])["sampling"]["temperature"] == 0.8 and row["taken_from"] == ""


def test_pauses_follow_the_boundaries(draft):
    draft()
    pauses = {row["text"]: row["pause_after_s"] for row in rows_of(OUT / "metadata.parquet")}
    assert pauses["CHAPTER I. The Door"] == pytest.approx(1.2)
    assert next(pause for text, pause in pauses.items() if "behind the shutters" in text) == 2.0
    assert next(pause for text, pause in pauses.items() if "dry cough" in text) == 3.0


def test_a_request_that_the_engine_never_answers_is_a_failure(draft, monkeypatch):
    answered = EspeakEngine.synthesize
    monkeypatch.setattr(
        EspeakEngine, "synthesize", lambda engine, requests, *rest: answered(engine, requests[1:], *rest)
    )
    ended = draft()
    assert ended.code == 1 and "1 utterance(s) failed" in ended.err
    (row,) = rows_of(OUT / "failed.parquet")
    assert row["error"] == "error: the engine gave no answer"


def test_speech_that_fails_the_checks_is_in_failed_parquet_and_the_exit_code(draft):
    ended = draft("check.max_pause_s=0.05")
    assert ended.code == 1
    ok, failed = rows_of(OUT / "metadata.parquet"), rows_of(OUT / "failed.parquet")
    assert failed and all(row["error"].startswith("long_pause: ") and row["status"] == "failed" for row in failed)
    assert all(row["attempts"][-1]["reason"] == "long_pause" and row["file_name"] is None for row in failed)
    assert {row["id"] for row in ok} == {path.stem for path in OUT.glob("wavs/*/*.wav")}
    assert draft("check.max_pause_s=0.05", f"max_failures={len(failed)}").code == 0
    assert draft().code == 0
    assert len(rows_of(OUT / "metadata.parquet")) == len(ok) + len(failed) and not (OUT / "failed.parquet").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(draft, tmp_path, story):
    shown = draft("dry_run=true")
    assert shown.code == 0 and list(tmp_path.iterdir()) == [story]
    assert "CHAPTER II. The Stair" in shown.out and "scene break: * * *" in shown.out
    assert "hours predicted" in shown.out and "GiB" in shown.out


def test_a_dry_run_needs_no_weights(job, story):
    assert job("generate", "book=story.txt", "dry_run=true").code == 0


def test_the_run_record_says_how_the_speech_was_made(draft):
    draft()
    record = json.loads(next(OUT.glob("runs/*-0.json")).read_text())
    assert record["state"] == "ended" and record["config"]["engine"]["name"] == "espeak"
    assert record["versions"]["resemble-perth"] and record["in_use"]["library"].startswith("espeak-ng")
    assert record["summary"]["utterances"] == len(written()) and record["summary"]["windows"][0]["x_realtime"] > 1


def test_a_run_without_watermark_is_explicit_and_recorded(draft):
    assert draft("watermark.enabled=false").code == 0
    assert {row["watermarked"] for row in rows_of(OUT / "metadata.parquet")} == {False}
    before = written()
    assert draft().code == 0 and rendered_anew(before) == set(before)


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("nowhere.txt", None, "nowhere.txt"),
        ("empty.txt", b" \n\n", "empty.txt"),
        ("latin.txt", "déjà vu".encode("latin-1"), "offset 1"),
        ("book.epub", b"PK\x03\x04" + bytes(100), "book.epub"),
        ("stars.txt", b"* * *\n\n---\n", "stars.txt"),
    ],
)
def test_a_book_that_cannot_be_read_is_one_line_and_exit_2(job, tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    ended = job("generate", f"book={name}", "engine=espeak")
    assert ended.code == 2 and ended.err.count("\n") == 1 and said in ended.err
    assert not (tmp_path / "outputs").exists()


def test_an_out_that_cannot_be_written_is_one_line_and_exit_2(draft, tmp_path):
    (tmp_path / "file").write_text("in the way")
    ended = draft("out=file/run")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "file/run" in ended.err


def test_pandas_duckdb_and_datasets_open_the_manifest(draft, tmp_path):
    draft()
    path, count = OUT / "metadata.parquet", len(written())
    import duckdb
    import pandas

    assert len(pandas.read_parquet(path)) == count
    assert duckdb.sql(f"select count(*), sum(duration) > 0 from '{path}'").fetchall() == [(count, True)]
    from datasets import load_dataset

    data = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
    assert data.num_rows == count and data[0]["file_name"] == "wavs/001/story-001-00000.wav"


def test_a_draft_refuses_a_voice_that_the_real_run_would_refuse(draft, tmp_path, story):
    ended = draft("voice.path=nowhere.wav")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "voice.path=nowhere.wav" in ended.err
    assert list(tmp_path.iterdir()) == [story]
