"""What is done to a folder and costs nothing."""

import os
import shutil
from pathlib import Path

from .damage import OUT, change_line, cut, line_of, wavs


def a_line_stands_twice():
    change_line(line_of(wavs()[1]), lambda line: line * 2)


def the_lock_is_deleted():
    (OUT / "journal" / "run.lock").unlink()


def the_lock_is_empty():
    cut(OUT / "journal" / "run.lock", 0)


def both_locks_are_deleted():
    the_lock_is_deleted()
    (OUT / "journal" / "merge.lock").unlink()


def the_run_records_are_deleted():
    shutil.rmtree(OUT / "runs")


def a_file_was_moved_aside_before():
    (OUT / "aside" / "x" / "wavs").mkdir(parents=True)
    (OUT / "aside" / "x" / "wavs" / "y.wav").write_bytes(b"RIFF")


def a_wav_is_a_link_to_its_bytes():
    path = wavs()[1]
    os.replace(path, "elsewhere.wav")
    path.symlink_to(Path("elsewhere.wav").absolute())


def notes_stand_beside_the_book():
    (OUT / "notes.txt").write_text("mine")


HARMLESS = [
    a_line_stands_twice, the_lock_is_deleted, the_lock_is_empty, both_locks_are_deleted, the_run_records_are_deleted,
    a_file_was_moved_aside_before, a_wav_is_a_link_to_its_bytes, notes_stand_beside_the_book,
]  # fmt: skip
