import os

import numpy as np
import pytest

from pipeline.data import Utterance
from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.index import changed_on_disk, is_done, read_index
from pipeline.store.journal import Journal
from pipeline.store.wav import write_wav


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(tmp_path)
    made.create()
    return made


def write(folder: RunFolder, name: str, journal: str = "0-of-1", generation: int = 1, key: str = "k") -> None:
    pcm = np.arange(100, dtype=np.int16)
    sha256 = write_wav(folder.root / f"{name}.wav", pcm, 24_000)
    row = dict(id=name, key=key, status="ok", file_name=f"{name}.wav", num_samples=100, audio_sha256=sha256)
    Journal(folder.root / "journal" / f"{journal}.jsonl", generation).append(row)


def test_a_later_process_outranks_an_earlier_one_whatever_its_journal_is_called_and_its_clock_says(folder):
    for generation, (journal, key) in enumerate([("1-of-2", "a"), ("0-of-1", "b"), ("1-of-2", "c"), ("0-of-2", "d")]):
        write(folder, "x", journal, generation, key)
        path = folder.root / "journal" / f"{journal}.jsonl"
        os.utime(path, (4e9 - generation * 1e9,) * 2)  # a clock that jumps backwards
        assert read_index(folder)["x"].key == key


def test_within_one_journal_the_last_row_counts(folder):
    for key in "abc":
        write(folder, "x", key=key)
    assert read_index(folder)["x"].key == "c"


def test_an_utterance_is_done_with_its_key_and_the_whole_of_its_wav(folder):
    write(folder, "x")
    entry = read_index(folder)["x"]
    assert is_done(entry, "k", folder) and not is_done(entry, "other", folder) and not is_done(None, "k", folder)
    path = folder.root / "x.wav"
    path.write_bytes(path.read_bytes()[:-2])
    assert not is_done(entry, "k", folder)
    path.unlink()
    assert not is_done(entry, "k", folder)


def test_a_single_changed_bit_of_a_wav_is_seen(folder):
    for name in ("x", "y", "z"):
        write(folder, name)
    path = folder.root / "y.wav"
    data = bytearray(path.read_bytes())
    data[99] ^= 4
    path.write_bytes(data)
    entries = read_index(folder).values()
    assert all(is_done(entry, "k", folder) for entry in entries)
    assert [entry.id for entry in changed_on_disk(entries, folder)] == ["y"]


def test_rows_of_failures_and_replacements_have_no_audio(folder):
    write(folder, "x")
    Journal(folder.root / "journal" / "0-of-1.jsonl", 2).append(dict(id="x", key="", status="replaced"))
    entry = read_index(folder)["x"]
    assert entry.status == "replaced" and not is_done(entry, "k", folder) and not is_done(entry, "", folder)


def break_line(folder: RunFolder, number: int, old: bytes = b'"ok"', new: bytes = b'"no"') -> None:
    path = folder.root / "journal" / "0-of-1.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number].replace(old, new)
    path.write_bytes(b"".join(lines))


def planned(*names: str) -> list[Planned]:
    said = dict(
        book="b", chapter=1, chapter_title="", index=0, paragraph=0, char_start=0, char_end=0, pause_after_s=0.0
    )
    return [Planned(Utterance(id=name, text="", spoken_text="", **said), "k", 0, 1.0) for name in names]


def test_a_broken_line_counts_until_its_utterance_has_a_row_again(folder):
    for name in ("x", "y"):
        write(folder, name)
    break_line(folder, 0)
    index = read_index(folder)
    assert list(index) == ["y"] and [(line.id, line.why) for line in index.passed_over] == [("x", "that are broken")]
    assert len(index.lost_rows(planned("x", "y"))) == 1 and index.lost_rows(planned("y")) == []
    write(folder, "x", generation=2)
    assert read_index(folder).passed_over and read_index(folder).lost_rows(planned("x", "y")) == []


def test_a_broken_line_that_names_nobody_counts_until_nobody_lacks_a_row(folder):
    for name in ("x", "y"):
        write(folder, name)
    break_line(folder, 0, b'"id"', b'"di"')
    assert len(read_index(folder).lost_rows(planned("x", "y"))) == 1
    assert read_index(folder).lost_rows(planned("y")) == []
