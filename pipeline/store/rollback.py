"""Rollbacks in the journal: from where on a run uses a safer precision, so that a resumed run does too.

They hold for the same voice, weights and options alone. Knows nothing of why there was one.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.config import Precision
from pipeline.plan import key_of
from pipeline.store import RunFolder
from pipeline.store.journal import read_rows

ROLLBACK = "rollback"  # status of such a row, which is of no utterance
SAFETY = {"fp32": 2, "tf32": 1, "bf16": 0, "fp16": 0}


def rollback_row(precision: Precision, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return dict(id="", key=_key(parameters), status=ROLLBACK, precision=asdict(precision))


def read_rollback(folder: RunFolder, parameters: Mapping[str, Any]) -> Precision | None:
    """The safest precision that a run with these parameters has been rolled back to; None: it never was."""
    key = _key(parameters)
    rows = (row for _, row in read_rows(folder.root / "journal"))
    found = [Precision(**row["precision"]) for row in rows if row["status"] == ROLLBACK and row["key"] == key]
    return max(found, key=_safety, default=None)


def _safety(precision: Precision) -> int:
    """More is safer: rollbacks of one run lead from half precision over TF32 to FP32."""
    return sum(SAFETY[number_format] for number_format in vars(precision).values())


def _key(parameters: Mapping[str, Any]) -> str:
    return key_of(parameters, "", 0)
