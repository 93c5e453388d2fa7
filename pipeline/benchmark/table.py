"""Figures of a benchmark: on the screen and in `benchmark.json`. Knows nothing of what was measured."""

import importlib.metadata
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.durable import write_durably

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Figure:
    """One figure. What stock or a physical limit has no say in is None."""

    stage: str
    name: str
    value: float
    unit: str
    stock: float | None  # stock's figure in the same process
    ratio: float | None  # ours to stock's
    bound_share: float | None  # of what the memory's bandwidth allows
    hardware: str
    torch: str
    date: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """A stage's rows as they are measured."""

    stage: str
    hardware: str
    settings: dict[str, Any]  # of all rows
    figures: list[Figure] = field(default_factory=list)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        stock: float | None = None,
        bound_share: float | None = None,
        **settings: Any,
    ) -> None:
        ratio = value / stock if stock else None
        today, version = f"{datetime.now():%Y-%m-%d}", importlib.metadata.version("torch")
        settings = self.settings | settings
        figure = Figure(
            self.stage, name, value, unit, stock, ratio, bound_share, self.hardware, version, today, settings
        )
        self.figures.append(figure)


def show(rows: Sequence[Figure]) -> str:
    """A table for people."""
    head = ("what", "ours", "stock", "ratio", "of the bound", "unit")
    cells = [head] + [
        (row.name, _short(row.value), _short(row.stock), _short(row.ratio), _percent(row.bound_share), row.unit)
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*lines, f"{rows[0].hardware}, torch {rows[0].torch}, {rows[0].date}"] if rows else lines)


def save(folder: Path, rows: Sequence[Figure]) -> Path:
    """Put `rows` in place of those of the same stages in `benchmark.json`; returns its path."""
    path = folder / "benchmark.json"
    stages = {row.stage for row in rows}
    try:
        kept = [row for row in json.loads(path.read_text()) if row["stage"] not in stages]
    except FileNotFoundError:
        kept = []
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s was no benchmark and is written anew: %s", path, error)
        kept = []
    text = json.dumps(kept + [asdict(row) for row in rows], indent=1)
    write_durably(path, lambda temporary: temporary.write_text(text))
    return path


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
