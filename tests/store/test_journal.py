import json

import pytest

from pipeline.errors import UserError
from pipeline.store.journal import Journal, read_rows


def row(n: int, **more) -> dict:
    return {"id": f"b-{n}", "key": "k", "status": "failed", "n": n} | more


def line(n: int, **more) -> bytes:
    return json.dumps(row(n, generation=1, **more)).encode() + b"\n"


def test_rows_come_back_in_the_order_of_writing(tmp_path):
    journal = Journal(tmp_path / "0-of-1.jsonl", 1)
    rows = [row(n, text="“Ünïcode”\n") for n in range(5)]
    for written in rows:
        journal.append(written)
    assert read_rows(tmp_path) == [written | {"generation": 1} for written in rows]


def test_a_later_process_outranks_an_earlier_one_whatever_its_journal_is_called(tmp_path):
    Journal(tmp_path / "1-of-2.jsonl", 1).append(row(0))
    Journal(tmp_path / "0-of-1.jsonl", 2).append(row(1))
    Journal(tmp_path / "1-of-2.jsonl", 3).append(row(2))
    assert [found["n"] for found in read_rows(tmp_path)] == [0, 1, 2]


def test_every_prefix_of_a_journal_loads_its_whole_rows(tmp_path):
    whole = b"".join(line(n, text="é" * n) for n in range(6))
    for cut in range(len(whole) + 1):
        (tmp_path / "0-of-1.jsonl").write_bytes(whole[:cut])
        rows = list(read_rows(tmp_path))
        assert [row["n"] for row in rows] == list(range(len(rows)))
        assert len(rows) == whole[:cut].count(b"\n")


def test_a_row_after_a_torn_line_does_not_stick_to_it(tmp_path):
    path = tmp_path / "0-of-1.jsonl"
    path.write_bytes(line(0) + line(1)[:-9])
    journal = Journal(path, 1)
    journal.append(row(2))
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]


BROKEN = [b"\xff\xfe{{", b"5", b"null", b"[]", b"{}", b'{"id":"x"}', b"[" * 100_000, line(1, status="ok")[:-1]]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_in_the_middle_costs_only_itself(tmp_path, caplog, broken):
    (tmp_path / "0-of-1.jsonl").write_bytes(line(0) + broken + b"\n" + line(2))
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]
    assert "1 broken line" in caplog.text


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
