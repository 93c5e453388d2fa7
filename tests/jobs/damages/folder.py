"""Damages of run records, and files that belong to no run."""

import os
import shutil

from pipeline.audit.finding import Kind
from pipeline.store.journal import decode, encode

from .damage import FIX, JOURNAL, OUT, change_row, cut, damage, line_of, lines, name, wavs


@damage(Kind.RECORD, FIX)
def a_run_record_is_cut():
    (record,) = OUT.glob("runs/*.json")
    cut(record)
    return [f"{name(record)} is no run record"]


@damage(Kind.RECORD, FIX)
def a_run_record_has_no_options():
    (record,) = OUT.glob("runs/*.json")
    record.write_text("{}")
    return [f"{name(record)} is no run record"]


@damage(Kind.STRANGER, FIX)
def a_stranger_is_among_the_wavs():
    shutil.copy(wavs()[1], OUT / "wavs" / "001" / "stranger.wav")
    return ["wavs/001/stranger.wav"]


@damage(Kind.STRANGER, FIX)
def notes_are_above_the_wavs():
    (OUT / "wavs" / "notes.txt").write_text("mine")
    return ["wavs/notes.txt"]


@damage(Kind.STRANGER, FIX)
def notes_are_among_the_journals():
    (OUT / "journal" / "notes.txt").write_text("mine")
    return ["journal/notes.txt"]


@damage(Kind.STRANGER, FIX)
def a_file_is_in_the_way_of_what_is_taken_over():
    (OUT / "reuse").write_text("mine")
    return ["reuse is in the way"]


@damage(Kind.SUPERSEDED, FIX)
def a_wav_of_an_earlier_edition_is_left():
    row = decode(lines()[line_of(wavs()[1])])
    old = row | dict(id="story-009-00001", file_name="wavs/009/story-009-00001.wav", key="1" * 32)
    (OUT / "wavs" / "009").mkdir()
    shutil.copy(wavs()[1], OUT / old["file_name"])
    JOURNAL.write_bytes(encode(old) + JOURNAL.read_bytes())
    return ["wavs/009/story-009-00001.wav"]


@damage(Kind.SUPERSEDED, FIX)
def speech_of_another_plan_is_held():
    (OUT / "reuse").mkdir()
    shutil.copy(wavs()[1], OUT / "reuse" / f"{'1' * 32}.wav")
    return [f"reuse/{'1' * 32}.wav"]


@damage(Kind.LEFTOVER)
def a_take_over_was_killed_at_its_end():
    key = decode(lines()[line_of(wavs()[1])])["key"]
    (OUT / "reuse").mkdir()
    os.link(wavs()[1], OUT / "reuse" / f"{key}.wav")
    return [f"reuse/{key}.wav"]


@damage(Kind.WAITING)
def a_take_over_was_killed_at_its_beginning():
    """The speech has an old id, and the plan a new one."""
    row = decode(lines()[line_of(wavs()[1])])
    change_row(wavs()[1], id="story-009-00001", file_name="wavs/009/story-009-00001.wav")
    (OUT / "wavs" / "009").mkdir()
    os.replace(OUT / row["file_name"], OUT / "wavs" / "009" / "story-009-00001.wav")
    return ["story-001-00001 is there, as story-009-00001"]


@damage(Kind.LEFTOVER)
def half_a_manifest_is_left():
    (OUT / "metadata.parquet.tmp").write_bytes(b"PAR1")
    return ["metadata.parquet.tmp"]


@damage(Kind.LEFTOVER)
def half_a_wav_is_left():
    (OUT / "wavs" / "001" / "story-001-00001.wav.tmp").write_bytes(b"RIFF")
    return ["wavs/001/story-001-00001.wav.tmp"]


@damage(Kind.LEFTOVER)
def half_a_record_is_left():
    (OUT / "runs" / "x.json.tmp").write_bytes(b"{")
    return ["runs/x.json.tmp"]
