"""Journal rows that record a switch to a safer precision. They apply to runs with the same parameters.

Knows nothing of why there was one.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.config import Precision
from pipeline.plan import key_of
from pipeline.store import RunFolder
from pipeline.store.journal import read_rows

ROLLBACK = "rollback"  # status of such a row, which is of no utterance


def rollback_row(precision: Precision, params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(id="", key=_key(params), status=ROLLBACK, precision=asdict(precision))


def read_rollbacks(folder: RunFolder, params: Mapping[str, Any]) -> list[Precision]:
    """Every precision that a run with these parameters has been rolled back to."""
    key = _key(params)
    rows = (row for _, row in read_rows(folder.root / "journal"))
    return [Precision(**row["precision"]) for row in rows if row.get("status") == ROLLBACK and row["key"] == key]


def _key(params: Mapping[str, Any]) -> str:
    return key_of(params, "", 0)
