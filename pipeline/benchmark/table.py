"""Figures of a benchmark: printed, and saved to `benchmark.json`. Knows nothing of what was measured."""

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
    """One figure. `stock`, `ratio` and `bound_share` are None where they do not apply."""

    stage: str
    name: str
    value: float
    unit: str
    stock: float | None  # stock's figure in the same process
    ratio: float | None  # value / stock
    bound_share: float | None  # share of the speed that memory bandwidth allows
    hardware: str
    torch: str
    date: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """A stage's figures as they are measured."""

    stage: str
    hardware: str
    settings: dict[str, Any]  # of all figures
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


def to_table(figures: Sequence[Figure]) -> str:
    """The figures as a table of text."""
    head = ("what", "ours", "stock", "ratio", "of the bound", "unit")
    cells = [head] + [
        (
            figure.name,
            _format_number(figure.value),
            _format_number(figure.stock),
            _format_number(figure.ratio),
            _format_percent(figure.bound_share),
            figure.unit,
        )
        for figure in figures
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(
        [*lines, f"{figures[0].hardware}, torch {figures[0].torch}, {figures[0].date}"] if figures else lines
    )


def save(folder: Path, figures: Sequence[Figure]) -> Path:
    """Save to `benchmark.json`, in place of figures of the same stages. Returns the file's path."""
    path = folder / "benchmark.json"
    stages = {figure.stage for figure in figures}
    try:
        kept = [row for row in json.loads(path.read_text()) if row["stage"] not in stages]
    except FileNotFoundError:
        kept = []
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s was no benchmark and is written anew: %s", path, error)
        kept = []
    text = json.dumps(kept + [asdict(figure) for figure in figures], indent=1)
    write_durably(path, lambda temporary: temporary.write_text(text))
    return path


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _format_percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
