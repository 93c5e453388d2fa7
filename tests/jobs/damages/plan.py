"""Damages of the plan and of the book's text."""

import json

import pyarrow.parquet as pq

from pipeline.audit.finding import Kind

from .damage import BOOK, FIX, PLAN, change_value, cut, damage, put_folder


@damage(Kind.PLAN)
def the_plan_is_deleted():
    PLAN.unlink()
    return ["plan.parquet (there is none)"]


@damage(Kind.PLAN)
def the_plan_is_cut():
    cut(PLAN)
    return ["plan.parquet ("]


@damage(Kind.PLAN)
def the_plan_is_empty():
    cut(PLAN, 0)
    return ["plan.parquet ("]


@damage(Kind.PLAN, FIX)
def the_plan_is_a_folder():
    put_folder(PLAN)
    return ["plan.parquet ("]


@damage(Kind.PLAN)
def a_title_of_the_plan_is_changed():
    change_value(PLAN, "chapter_title", str.lower)
    return ["plan.parquet (it is not what was written)"]


@damage(Kind.PLAN)
def a_text_of_the_plan_is_changed():
    change_value(PLAN, "spoken_text", lambda text: "Something else.")
    return ["plan.parquet (it is not what was written)"]


@damage(Kind.PLAN)
def a_key_of_the_plan_is_changed():
    change_value(PLAN, "key", lambda key: key[::-1])
    return ["plan.parquet (it is not what was written)"]


@damage(Kind.PLAN)
def an_option_of_the_plan_is_changed():
    table = pq.read_table(PLAN)
    facts = json.loads(table.schema.metadata[b"edition"])
    facts["params"]["seed"] = 7
    pq.write_table(table.replace_schema_metadata({"edition": json.dumps(facts)}), PLAN)
    return ["plan.parquet (it is not what was written)"]


@damage(Kind.PLAN)
def the_text_is_deleted():
    BOOK.unlink()
    return ["book.txt (there is none)"]


@damage(Kind.PLAN)
def the_text_is_cut():
    cut(BOOK)
    return ["book.txt (it is not the text that the plan is of)"]


@damage(Kind.PLAN)
def a_word_of_the_text_is_changed():
    BOOK.write_text(BOOK.read_text().replace("candle", "kettle"))
    return ["book.txt (it is not the text that the plan is of)"]
