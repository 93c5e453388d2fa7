import errno
import json
import os
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.store import journal as journals
from pipeline.store.journal import Journal, encode
from pipeline.store.schema import VERSION


def row(n: int, **more) -> dict:
    return {"id": f"b-{n}", "key": "k", "status": "failed", "n": n} | more


def line(n: int, **more) -> bytes:
    return encode(row(n, generation=1, **more))


def read_rows(folder) -> list[dict]:
    return [row for _, row in journals.read_rows(folder)]


def test_rows_come_back_in_the_order_of_writing(tmp_path):
    journal = Journal(tmp_path / "0-of-1.jsonl", 1)
    rows = [row(n, text="“Ünïcode”\n") for n in range(5)]
    for written in rows:
        journal.append(written)
    assert read_rows(tmp_path) == [written | {"generation": 1, "version": VERSION} for written in rows]


def test_every_line_is_json_that_other_programs_read(tmp_path):
    Journal(tmp_path / "0-of-1.jsonl", 1).append(row(0, text="a\nb"))
    (found,) = map(json.loads, (tmp_path / "0-of-1.jsonl").read_text().splitlines())
    assert found["text"] == "a\nb" and len(found["crc32"]) == 8


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), max_size=5)


@given(ROWS, st.data())
@settings(max_examples=60, deadline=None)
def test_any_prefix_of_any_journal_loads_its_whole_rows(tmp_path_factory, rows, data):
    folder = tmp_path_factory.mktemp("journal")
    lines = [encode(row) for row in rows]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    (folder / "0-of-1.jsonl").write_bytes(whole[:cut])
    assert read_rows(folder) == rows[: whole[:cut].count(b"\n")]


def test_every_prefix_of_one_journal_loads_and_takes_new_rows(tmp_path):
    path = tmp_path / "0-of-1.jsonl"
    whole = b"".join(line(n, text="é" * n) for n in range(4))
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path, 1)
        journal.append(row(9))
        journal.close()
        assert [found["n"] for found in read_rows(tmp_path)] == [*range(whole[:cut].count(b"\n")), 9]


def test_a_changed_byte_anywhere_costs_the_line_it_is_in_and_no_other(tmp_path):
    draw = random.Random(0)
    lines = [line(n, text="Nobody came.") for n in range(3)]
    for _ in range(300):
        at, broken = draw.randrange(len(lines[1]) - 1), bytearray(lines[1])
        broken[at] = draw.choice([value for value in range(256) if value not in (broken[at], ord("\n"))])
        (tmp_path / "0-of-1.jsonl").write_bytes(lines[0] + broken + lines[2])
        assert [found["n"] for found in read_rows(tmp_path)] == [0, 2]


SIGNED = b'5,"crc32":"%08x"}' % zlib.crc32(b"5")  # by a program that writes no JSON
BROKEN = [
    SIGNED,
    b"",
    b"\xff\xfe{{",
    b"5",
    b"null",
    b"[]",
    b"{}",
    b'{"id":"x"}',
    b"[" * 100_000,
    line(1)[:-2],
    line(1)[1:-1],
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_in_the_middle_costs_only_itself(tmp_path, broken):
    (tmp_path / "0-of-1.jsonl").write_bytes(line(0) + broken + b"\n" + line(2))
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]
    assert [found for _, found in journals.read_lines(tmp_path)] == [line(0), broken + b"\n", line(2)]


def test_a_row_after_a_long_torn_line_does_not_stick_to_it(tmp_path):
    path = tmp_path / "0-of-1.jsonl"
    path.write_bytes(line(0) + line(1, text="x" * 200_000)[:-9])
    Journal(path, 1).append(row(2))
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]


def test_no_row_is_written_any_more_once_the_disk_has_refused_to_make_one_durable(tmp_path, monkeypatch):
    journal, fsync, refusals = Journal(tmp_path / "0-of-1.jsonl", 1), os.fsync, [errno.EIO]

    def refusing_once(fd: int) -> None:
        if refusals:
            raise OSError(refusals.pop(), "refused")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refusing_once)
    for n in range(3):
        with pytest.raises(OSError, match="refused"):
            journal.append(row(n))
    assert not refusals and [found["n"] for found in read_rows(tmp_path)] == [0]


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = Journal(tmp_path / "0-of-1.jsonl", 1)
    with pytest.raises(UserError, match="in use"):
        Journal(tmp_path / "0-of-1.jsonl", 1)
    first.close()
    Journal(tmp_path / "0-of-1.jsonl", 1).append(row(1))


def test_shards_do_not_lock_each_other(tmp_path):
    Journal(tmp_path / "0-of-2.jsonl", 1).append(row(0))
    Journal(tmp_path / "1-of-2.jsonl", 1).append(row(1))
    assert sorted(row["n"] for row in read_rows(tmp_path)) == [0, 1]
