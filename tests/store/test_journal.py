import json

import pytest

from pipeline.errors import UserError
from pipeline.store.journal import Journal, read_rows


def test_rows_come_back_in_the_order_of_writing(tmp_path):
    journal = Journal(tmp_path / "0-of-1.jsonl")
    rows = [{"id": f"b-{i}", "text": "“Ünïcode”\n"} for i in range(5)]
    for row in rows:
        journal.append(row)
    assert list(read_rows(tmp_path)) == rows


def test_every_prefix_of_a_journal_loads_its_whole_rows(tmp_path):
    whole = b"".join(json.dumps({"n": n, "text": "é" * n}).encode() + b"\n" for n in range(6))
    for cut in range(len(whole) + 1):
        (tmp_path / "0-of-1.jsonl").write_bytes(whole[:cut])
        rows = list(read_rows(tmp_path))
        assert [row["n"] for row in rows] == list(range(len(rows)))
        assert len(rows) >= whole[:cut].count(b"\n")


def test_a_row_after_a_torn_line_does_not_stick_to_it(tmp_path):
    path = tmp_path / "0-of-1.jsonl"
    path.write_bytes(b'{"n":0}\n{"n":1')
    journal = Journal(path)
    journal.append({"n": 2})
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]


def test_a_broken_line_in_the_middle_costs_only_itself(tmp_path, caplog):
    (tmp_path / "0-of-1.jsonl").write_bytes(b'{"n":0}\n\xff\xfe{{\n{"n":2}\n')
    assert [row["n"] for row in read_rows(tmp_path)] == [0, 2]
    assert "1 broken line" in caplog.text


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = Journal(tmp_path / "0-of-1.jsonl")
    with pytest.raises(UserError, match="in use"):
        Journal(tmp_path / "0-of-1.jsonl")
    first.close()
    Journal(tmp_path / "0-of-1.jsonl").append({"n": 1})


def test_shards_do_not_lock_each_other(tmp_path):
    Journal(tmp_path / "0-of-2.jsonl").append({"n": 0})
    Journal(tmp_path / "1-of-2.jsonl").append({"n": 1})
    assert sorted(row["n"] for row in read_rows(tmp_path)) == [0, 1]
