"""Run folders of other versions: one of commit 98b7de7, one with a column that nobody knows, one that lacks a column.

`tests/data/run_98b7de7` is the draft voice's speech of `run_98b7de7.txt`, made by that commit.
"""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.espeak import EspeakEngine
from pipeline.store.finished import open_run
from pipeline.store.journal import decode, encode
from pipeline.store.schema import NAMES, VERSION, VERSION_KEY

from ..conftest import rows_of
from .test_generate import OUT, rendered_anew, written

DATA = Path(__file__).parents[1] / "data"
JOURNAL = OUT / "journal" / "0-of-1.jsonl"


@pytest.fixture
def old(draft, story, monkeypatch) -> None:
    """The folder of 98b7de7 and its book, with the espeak-ng of then, which the keys name."""
    shutil.copytree(DATA / "run_98b7de7", OUT)
    shutil.copy(DATA / "run_98b7de7.txt", story)
    version = open_run(OUT).snapshot.params["revision"]
    monkeypatch.setattr(EspeakEngine, "_version", lambda engine: version)


def change_lines(change) -> None:
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    JOURNAL.write_bytes(b"".join(encode(change(decode(line))) for line in lines))


def assert_resumes_and_audits(draft, job) -> list[dict]:
    """Nothing is rendered, all promises hold, and the manifest has today's columns; returns its rows."""
    assert job("audit", f"run={OUT}").code == 0  # as it was left
    before, wavs = written(), {path: path.read_bytes() for path in OUT.rglob("*.wav")}
    ended = draft()
    assert ended.code == 0 and "0 to render" in ended.out
    assert rendered_anew(before) == set() and {path: path.read_bytes() for path in OUT.rglob("*.wav")} == wavs
    audited = job("audit", f"run={OUT}")
    assert audited.code == 0 and "planned 5, ok 5, failed 0" in audited.out
    manifest = pq.read_table(OUT / "metadata.parquet")
    assert manifest.schema.metadata[VERSION_KEY] == str(VERSION).encode()
    assert manifest.column_names[: len(NAMES)] == list(NAMES)
    return manifest.to_pylist()


def test_a_folder_of_98b7de7_is_resumed_audited_and_has_todays_columns(old, draft, job):
    then = {row["id"]: row for row in rows_of(OUT / "metadata.parquet")}
    for row in assert_resumes_and_audits(draft, job):
        before = then[row["id"]]
        assert {name: row[name] for name in before if name != "attempts"} == {
            name: value for name, value in before.items() if name != "attempts"
        }
        assert [attempt | {"sampling": None} for attempt in before["attempts"]] == row["attempts"]
        assert row["taken_from"] == ""


def test_a_folder_of_98b7de7_goes_on_with_an_edited_book(old, draft, job, story):
    story.write_text(story.read_text().replace("CHAPTER II.", "It was dark.\n\nCHAPTER II."))
    ended = draft()
    assert ended.code == 0 and "1 to render" in ended.out
    assert job("audit", f"run={OUT}").code == 0
    versions = [decode(line).get("version") for line in JOURNAL.read_bytes().splitlines(keepends=True)]
    assert versions == [None] * 5 + [VERSION]


def test_a_column_that_nobody_knows_is_kept_in_journal_manifest_and_a_take_over(old, draft, job, story):
    change_lines(lambda row: row | {"wer": 0.25, "words": row["index"], "ears": {"model": "x", "n": [1]}})
    rows = assert_resumes_and_audits(draft, job)
    assert all(row["wer"] == 0.25 and row["words"] == row["index"] for row in rows)
    assert all(json.loads(row["ears"]) == {"model": "x", "n": [1]} for row in rows)

    story.write_text("PROLOGUE\n\nOnce.\n\n" + story.read_text())  # numbers of chapters move
    assert draft().code == 0 and job("audit", f"run={OUT}").code == 0
    taken = [row for row in rows_of(OUT / "metadata.parquet") if row["taken_from"]]
    assert len(taken) == 5 and all(row["wer"] == 0.25 and json.loads(row["ears"])["n"] == [1] for row in taken)
    (new, *_) = [row for row in rows_of(OUT / "metadata.parquet") if row["text"] == "Once."]
    assert new["wer"] is None and new["ears"] is None


@pytest.mark.parametrize(
    "name", ["chars_per_second", "language", "attempts", "watermark_score", "params", "duration", "sample_rate"]
)
def test_a_column_that_a_folder_lacks_has_its_default(old, draft, job, name):
    (OUT / "metadata.parquet").unlink()
    change_lines(lambda row: {column: value for column, value in row.items() if column != name})
    assert draft().code == 0
    default = {"language": "en", "attempts": [], "params": "", "sample_rate": 24_000}.get(name)
    for row in assert_resumes_and_audits(draft, job):
        assert row[name] == default


def test_a_row_without_what_its_wav_is_known_by_is_rendered_again(old, draft, job):
    change_lines(lambda row: {column: value for column, value in row.items() if column != "num_samples"})
    ended = draft()
    assert ended.code == 0 and "5 to render" in ended.out and job("audit", f"run={OUT}").code == 0


@pytest.mark.parametrize(
    "wrong",
    [dict(num_samples="odd"), dict(duration="odd"), dict(created_at="odd"), dict(key={}), dict(id=[1]), dict(text={})]
    + [dict(generation="x"), dict(chapter=2**70), dict(status=None), dict(synthetic=1), dict(speech_tokens="x")],
)
def test_a_row_with_a_value_of_a_wrong_type_is_passed_over_and_rendered_again(old, draft, job, wrong):
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    JOURNAL.write_bytes(b"".join([*lines[:-1], encode(decode(lines[-1]) | wrong)]))
    audited = job("audit", f"run={OUT}", "watermark=none")
    assert audited.code == 1 and "Traceback" not in audited.err
    ended = draft()
    assert ended.code == 0 and "1 to render" in ended.out and ended.out.count("passed over") == 1
    assert "passed over" not in draft().out


def test_an_unknown_column_may_hold_any_number(old, draft, job):
    change_lines(lambda row: row | {"big": 2**70})
    assert {row["big"] for row in assert_resumes_and_audits(draft, job)} == {str(2**70)}


def test_a_manifest_of_an_earlier_version_that_was_changed_is_found_out(old, job):
    table = pq.read_table(OUT / "metadata.parquet")
    texts = ["Something else.", *table["text"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", [texts]), OUT / "metadata.parquet")
    ended = job("audit", f"run={OUT}", "watermark=none")
    assert ended.code == 1 and "metadata.parquet differs, from story-001-00000 on (text)" in ended.out


@pytest.mark.parametrize(
    "column, value, told",
    [
        ("spoken_text", "Something else.", "WRONG: key that is not of its text and options: 1 ("),
        ("char_start", 3, "WRONG: text that is not spoken as the book has it: 1 ("),
    ],
)
def test_a_plan_without_a_hash_of_itself_is_held_against_text_and_keys(old, draft, job, column, value, told):
    table = pq.read_table(OUT / "plan.parquet")
    changed = pa.array([value, *table[column].to_pylist()[1:]], table.schema.field(column).type)
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, table.schema.field(column), changed), OUT / "plan.parquet")
    ended = job("audit", f"run={OUT}", "watermark=none")
    assert ended.code == 1 and told in ended.out and ended.out.count("WRONG") == 1
    assert draft().code == 0 and job("audit", f"run={OUT}", "watermark=none").code == 0


def test_options_of_a_record_that_exist_no_more_are_logged_and_the_others_hold(old, caplog):
    caplog.set_level("INFO")
    config = open_run(OUT).config
    assert config.engine.rate_wpm == 170 and config.wandb.mode == "disabled"
    assert "the option plan.bucket_size=32 of a run record does not exist today" in caplog.text
