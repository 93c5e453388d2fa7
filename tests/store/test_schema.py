"""The one list of columns: what a row is made of, whatever version wrote it."""

import pyarrow as pa
import pytest

from pipeline.store.schema import COLUMNS, NAMES, VERSION, arrow_schema, complete_row, fit_row, make_row


def test_every_column_is_there_once_and_is_explained():
    assert len(set(NAMES)) == len(NAMES)
    assert all(column.meaning and 1 <= column.since <= VERSION for column in COLUMNS)


def test_a_row_has_every_column_and_none_beside():
    row = make_row(id="x", status="ok")
    assert tuple(row) == NAMES and row["id"] == "x" and row["language"] == "en" and row["duration"] is None
    with pytest.raises(ValueError, match="wer is not a column"):
        make_row(id="x", wer=0.1)


def test_every_default_fits_its_columns_type():
    schema = arrow_schema()
    table = pa.Table.from_pylist([fit_row(make_row(), schema)], schema=schema)
    assert table.num_rows == 1 and table.column_names == list(NAMES)


def test_a_line_of_another_version_has_defaults_and_keeps_what_is_not_known():
    row = complete_row({"id": "x", "wer": 0.5, "generation": 3, "version": 9, "crc32": "0"})
    assert row["id"] == "x" and row["taken_from"] == "" and row["wer"] == 0.5
    assert not row.keys() & {"generation", "version", "crc32"}


@pytest.mark.parametrize(
    "values, kind, kept",
    [
        ([1, 2], pa.int64(), [1, 2]),
        ([1, 0.5], pa.float64(), [1.0, 0.5]),
        ([True, None], pa.bool_(), [True, None]),
        ([None, "a"], pa.string(), [None, "a"]),
        (["a", 1], pa.string(), ["a", "1"]),
        ([{"n": 1}, [2]], pa.string(), ['{"n": 1}', "[2]"]),
        ([None, None], pa.null(), [None, None]),
    ],
)
def test_an_unknown_column_gets_the_type_that_holds_all_its_values(values, kind, kept):
    rows = [make_row() | {"new": value} for value in values]
    schema = arrow_schema(rows)
    assert schema.field("new").type == kind and schema.names == [*NAMES, "new"]
    table = pa.Table.from_pylist([fit_row(row, schema) for row in rows], schema=schema)
    assert table["new"].to_pylist() == kept
