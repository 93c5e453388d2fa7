"""The audit of a run that the draft voice made: whole, then broken in every way that a promise names."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.store.journal import decode, encode

from ..conftest import rows_of
from .test_generate import OUT, written


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "story"


@pytest.fixture
def run(draft, job, whole):
    """`run("fix=true")` audits a finished run of the story, rendered once for all tests."""
    if whole.exists():
        shutil.copytree(whole, OUT)
    else:
        assert draft().code == 0
        shutil.copytree(OUT, whole)
    return lambda *more: job("audit", f"run={OUT}", *more)


def one_wav() -> Path:
    return sorted(OUT.glob("wavs/001/*.wav"))[1]


def change_bit(path: Path, at: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_whole_run_passes(run):
    ended = run()
    count = len(written())
    assert ended.code == 0 and ended.err == "" and "WRONG" not in ended.out
    assert f"planned {count}, ok {count}, failed 0" in ended.out and f"watermarks looked for: {count}" in ended.out


def flip_a_bit():
    change_bit(one_wav())
    return f"wavs/001/{one_wav().name} is not what was written: its hash differs"


def delete_a_wav():
    name = one_wav().name
    one_wav().unlink()
    return f"{Path(name).stem} has lost its WAV"


def cut_a_wav():
    one_wav().write_bytes(one_wav().read_bytes()[:-100])
    return f"{one_wav().stem} has lost its WAV"


def lie_about_the_rate():
    change_bit(one_wav(), 24)  # the header's sample rate
    return "1 channel(s) of 16 bits at 24001 Hz"


def put_no_wav_there():
    one_wav().write_bytes(b"x" * one_wav().stat().st_size)
    return "is no WAV"


def add_a_stranger():
    shutil.copy(one_wav(), OUT / "wavs" / "001" / "stranger.wav")
    return "wavs/001/stranger.wav has no row in any journal"


def leave_half_a_file():
    (OUT / "metadata.parquet.tmp").write_bytes(b"PAR1")
    return "metadata.parquet.tmp was never finished"


def drop_a_row_of_the_manifest():
    table = pq.read_table(OUT / "metadata.parquet")
    pq.write_table(table.slice(1), OUT / "metadata.parquet")
    return "metadata.parquet is not what the journal says, from story-001-00000 on"


def change_the_manifest():
    table = pq.read_table(OUT / "metadata.parquet")
    texts = ["Something else.", *table["text"].to_pylist()[1:]]
    place = table.schema.get_field_index("text")
    pq.write_table(table.set_column(place, "text", [texts]), OUT / "metadata.parquet")
    return "is not what the journal says, from story-001-00000 on (text)"


def break_the_manifest():
    (OUT / "metadata.parquet").write_bytes(b"no parquet")
    return "metadata.parquet cannot be read"


def break_a_line_of_the_journal():
    journal = OUT / "journal" / "0-of-1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    broken, id = lines[2].replace(b'"status":"ok"', b'"status":"no"'), json.loads(lines[2])["id"]
    journal.write_bytes(b"".join([*lines[:2], broken, *lines[3:]]))
    return f"{id} is not rendered yet"


def edit_the_copy_of_the_book():
    (OUT / "book.txt").write_text((OUT / "book.txt").read_text().replace("candle", "kettle"))
    return "plan.parquet or book.txt is missing or damaged"


def forge_a_row():
    """Checksum and all."""
    journal = OUT / "journal" / "0-of-1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    row = decode(lines[0])
    lines[0] = encode(row | {"duration": row["duration"] + 1})
    journal.write_bytes(b"".join(lines))
    return f"{row['file_name']} lasts"


DAMAGE = [
    flip_a_bit, delete_a_wav, cut_a_wav, lie_about_the_rate, put_no_wav_there, add_a_stranger, leave_half_a_file,
    drop_a_row_of_the_manifest, change_the_manifest, break_the_manifest, break_a_line_of_the_journal,
    edit_the_copy_of_the_book,
]  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGE, forge_a_row], ids=lambda damage: damage.__name__)
def test_damage_is_told_in_the_words_of_what_is_broken(run, damage):
    told = damage()
    ended = run("watermark=none")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert told in ended.out


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_what_was_damaged_is_mended_by_fixing_and_the_same_command(run, draft, damage):
    before = {path.name: path.read_bytes() for path in OUT.glob("wavs/*/*.wav")}
    damage()
    run("fix=true", "watermark=none")
    assert draft().code == 0
    assert run("watermark=sample").code == 0
    assert {path.name: path.read_bytes() for path in OUT.glob("wavs/*/*.wav")} == before


def test_a_watermark_that_is_gone_is_found_out_even_if_journal_and_hash_agree(run, draft):
    """As if another program had put unmarked speech there, and signed for it."""
    draft("watermark.enabled=false", "out=unmarked", "limit=3")
    journal = OUT / "journal" / "0-of-1.jsonl"
    row = decode(journal.read_bytes().splitlines(keepends=True)[0])
    data = (Path("unmarked") / row["file_name"]).read_bytes()
    (OUT / row["file_name"]).write_bytes(data)
    with open(journal, "ab") as file:
        file.write(encode(row | {"audio_sha256": hashlib.sha256(data).hexdigest()}))
    assert draft().code == 0
    ended = run()
    assert ended.code == 1 and f"WRONG: {row['file_name']} has no watermark" in ended.out


def test_a_shorter_edition_leaves_wavs_that_fixing_moves_aside(run, draft, story):
    story.write_text(story.read_text().replace("He knocked a second time, and listened. ", "").replace('"Oh!"\n', ""))
    assert draft().code == 0
    orphan = "wavs/002/story-002-00002.wav"
    first = run("watermark=none")
    assert first.code == 1 and f"WRONG: {orphan} is of an earlier edition" in first.out
    fixed = run("fix=true", "watermark=none")
    assert fixed.code == 0 and "moved aside into" in fixed.out
    (moved,) = OUT.glob(f"aside/*/{orphan}")
    assert soundfile.info(moved).frames and not (OUT / orphan).exists()
    assert run("watermark=none").code == 0 and "0 to render" in draft().out


def test_failed_utterances_are_listed_and_count_against_max_failures(draft, job):
    strict = ("check.max_pause_s=0.05", "check.too_long_per_word_s=0.28")
    assert draft(*strict).code == 1
    failed = rows_of(OUT / "failed.parquet")
    ended = job("audit", f"run={OUT}")
    assert failed and ended.code == 1 and "WRONG" not in ended.out
    assert all(f"failed: {row['id']}: {row['error']}" in ended.out for row in failed)
    assert job("audit", f"run={OUT}", f"max_failures={len(failed)}").code == 0


def test_a_run_that_is_not_finished_names_what_is_missing(draft, job):
    draft("limit=2")
    ended = job("audit", f"run={OUT}", "watermark=none")
    assert ended.code == 1 and "story-002-00000 is not rendered yet: run jobs.generate again" in ended.out


def test_an_unmarked_run_passes_because_it_asked_for_that(draft, job):
    draft("watermark.enabled=false")
    ended = job("audit", f"run={OUT}")
    assert ended.code == 0 and "watermarks looked for: 0" in ended.out


@pytest.mark.parametrize("path", ["story.txt", "x" * 300, "/dev/null"])
def test_what_is_no_folder_is_one_line_and_exit_2(job, story, path):
    ended = job("audit", f"run={path}", "watermark=none")
    assert ended.code == 2 and ended.err.count("\n") == 1 and f"run={path}" in ended.err


def test_a_folder_without_a_run_is_one_line_and_exit_2(job, tmp_path):
    ended = job("audit", f"run={tmp_path}")
    assert ended.code == 2 and ended.err.count("\n") == 1 and "no run in it" in ended.err
    assert list(tmp_path.iterdir()) == []
