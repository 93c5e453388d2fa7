"""Damages of both tables."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.audit.finding import Kind

from .damage import FAILED, FIX, METADATA, change_value, cut, damage, put_folder


@damage(Kind.TABLE)
def the_manifest_is_deleted():
    METADATA.unlink()
    return ["metadata.parquet is gone"]


@damage(Kind.TABLE)
def the_manifest_is_cut():
    cut(METADATA)
    return ["metadata.parquet cannot be read"]


@damage(Kind.TABLE)
def the_manifest_is_empty():
    cut(METADATA, 0)
    return ["metadata.parquet cannot be read"]


@damage(Kind.TABLE)
def a_text_of_the_manifest_is_changed():
    change_value(METADATA, "text", lambda text: "Something else.")
    return ["metadata.parquet differs, from story-001-00000 on (text)"]


@damage(Kind.TABLE)
def a_number_of_the_manifest_is_changed():
    change_value(METADATA, "peak_db", lambda level: level + 1)
    return ["metadata.parquet differs, from story-001-00000 on (peak_db)"]


@damage(Kind.TABLE)
def the_manifest_is_older_than_the_journal():
    pq.write_table(pq.read_table(METADATA).slice(0, 1), METADATA)
    return ["metadata.parquet lacks "]


@damage(Kind.TABLE)
def the_manifest_has_a_row_twice():
    table = pq.read_table(METADATA)
    pq.write_table(pa.concat_tables([table.slice(0, 1), table]), METADATA)
    return ["metadata.parquet has 1 row(s) too many, from story-001-00000 on"]


@damage(Kind.TABLE)
def the_manifest_is_in_another_order():
    table = pq.read_table(METADATA)
    pq.write_table(table.take(list(range(len(table)))[::-1]), METADATA)
    return ["metadata.parquet has its rows in another order"]


@damage(Kind.TABLE)
def the_manifest_lacks_a_column():
    pq.write_table(pq.read_table(METADATA).drop_columns(["seed"]), METADATA)
    return ["metadata.parquet lacks the column(s) seed"]


@damage(Kind.TABLE, FIX)
def the_manifest_is_a_folder():
    put_folder(METADATA)
    return ["metadata.parquet cannot be read"]


@damage(Kind.TABLE)
def the_table_of_failures_is_deleted():
    FAILED.unlink()
    return ["failed.parquet is gone"]


@damage(Kind.TABLE)
def the_table_of_failures_is_cut():
    cut(FAILED)
    return ["failed.parquet cannot be read"]


@damage(Kind.TABLE)
def an_error_in_the_table_of_failures_is_changed():
    change_value(FAILED, "error", lambda error: "")
    return ["failed.parquet differs, from story-001-"]


@damage(Kind.TABLE)
def the_table_of_failures_is_of_another_run():
    shutil.copy(METADATA, FAILED)
    return ["failed.parquet lacks "]
