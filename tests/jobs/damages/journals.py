"""Damages of journals, and rows that lie."""

import shutil

from pipeline.audit.finding import Kind
from pipeline.store.journal import decode, encode

from .damage import (
    FAILED,
    FIX,
    JOURNAL,
    METADATA,
    OUT,
    change_line,
    change_row,
    cut,
    damage,
    flip,
    line_of,
    lines,
    put_folder,
    wavs,
)


@damage(Kind.JOURNAL)
def a_line_is_broken():
    change_line(line_of(wavs()[1]), lambda line: line.replace(b'"status":"ok"', b'"status":"no"'))
    return ["journal/0-of-1.jsonl has 1 line(s) that are broken; 1 utterance(s) have no row, from story-001-"]


@damage(Kind.JOURNAL)
def a_line_of_which_even_the_id_is_broken():
    change_line(line_of(wavs()[1]), lambda line: b"\xff" * 40 + line[40:])
    return ["journal/0-of-1.jsonl has 1 line(s) that are broken; 1 utterance(s) have no row, from story-001-"]


@damage(Kind.JOURNAL)
def a_line_has_the_id_of_another():
    change_line(line_of(wavs()[1]), lambda line: line.replace(b"story-001-00001", b"story-001-00000", 1))
    return ["journal/0-of-1.jsonl has 1 line(s) that are broken; 1 utterance(s) have no row, from story-001-"]


@damage(Kind.JOURNAL)
def a_line_of_a_failed_utterance_is_broken():
    (number, *_) = [n for n, line in enumerate(lines()) if decode(line)["status"] == "failed"]
    change_line(number, lambda line: flip(line, len(line) // 2))
    return ["journal/0-of-1.jsonl has 1 line(s) that are broken; 1 utterance(s) have no row, from story-001-"]


@damage(Kind.JOURNAL)
def the_last_line_is_cut():
    cut(JOURNAL, -9)
    return ["journal/0-of-1.jsonl has 1 line(s) cut off; 1 utterance(s) have no row, from story-"]


@damage(Kind.JOURNAL)
def a_row_has_a_value_of_a_wrong_type():
    change_row(wavs()[1], duration="long")
    return ["journal/0-of-1.jsonl has 1 line(s) with a wrong duration; 1 utterance(s) have no row, from story"]


@damage(Kind.JOURNAL)
def a_journal_is_deleted():
    JOURNAL.unlink()
    return ["journal/0-of-1.jsonl is gone; "]


@damage(Kind.JOURNAL)
def a_journal_is_empty():
    cut(JOURNAL, 0)
    return ["journal/0-of-1.jsonl is empty; "]


@damage(Kind.JOURNAL, FIX)
def a_journal_is_a_folder():
    put_folder(JOURNAL)
    return ["journal/0-of-1.jsonl is no file"]


@damage(Kind.JOURNAL)
def all_journals_and_locks_are_deleted():
    shutil.rmtree(OUT / "journal")
    return ["journal/0-of-1.jsonl is gone; "]


@damage(Kind.MISSING)
def a_job_was_killed_before_its_first_row():
    ids = sorted(decode(line)["id"] for line in lines())
    cut(JOURNAL, 0)
    shutil.rmtree(OUT / "wavs")
    METADATA.unlink()
    FAILED.unlink()
    return [f"{id} was never rendered" for id in ids]


@damage(Kind.UNVOUCHED)
def a_line_is_lost():
    change_line(line_of(wavs()[1]), lambda line: b"")
    return ["wavs/001/story-001-00001.wav"]


@damage(Kind.WAITING)
def a_job_was_killed_before_it_replaced_a_wav():
    with open(JOURNAL, "ab") as file:
        file.write(encode(dict(id="story-001-00001", key="", status="replaced", generation=9)))
    return ["story-001-00001 is there, but a job began to replace it"]


@damage(Kind.MISSING)
def a_job_was_killed_after_it_replaced_a_wav():
    a_job_was_killed_before_it_replaced_a_wav()
    shutil.copy(wavs()[0], wavs()[1])
    return ["story-001-00001 was being rendered when the job ended"]


@damage(Kind.MISSING)
def a_row_has_another_key():
    change_row(wavs()[1], key="0" * 32)
    return ["story-001-00001 was rendered for another text or other options only"]


@damage(Kind.ROW, FIX)
def a_row_lies_about_the_duration():
    change_row(wavs()[1], duration=99.0)
    return ["wavs/001/story-001-00001.wav is as it was written, and lasts "]


@damage(Kind.ROW)
def a_row_lies_about_the_length():
    change_row(wavs()[1], num_samples=99)
    return ["wavs/001/story-001-00001.wav is as it was written, and has "]


@damage(Kind.ROW)
def a_row_does_not_say_what_its_wav_is():
    change_row(wavs()[1], num_samples=None)
    return ["wavs/001/story-001-00001.wav has a row without num_samples"]


@damage(Kind.ROW, FIX)
def a_row_names_the_wav_of_another():
    other = decode(lines()[line_of(wavs()[0])])
    facts = {column: other[column] for column in ("file_name", "num_samples", "audio_sha256", "duration")}
    change_row(wavs()[1], **facts)
    return ["wavs/001/story-001-00001.wav is not the file that its row names, wavs/001/story-001-00000.wav"]


@damage(Kind.CHANGED)
def a_row_lies_about_the_hash():
    change_row(wavs()[1], audio_sha256="0" * 64)
    return ["wavs/001/story-001-00001.wav has another hash"]
