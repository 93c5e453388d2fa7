"""Results of precision policies side by side: figures, a CSV, a plot. Knows nothing of measuring.

Each field of `PolicyOutcome` is a column of the CSV, a panel of the plot, and for each policy an entry of
`benchmark.json`.
"""

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import Field, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline.benchmark.table import Figure, Figures
from pipeline.durable import write_durably

log = logging.getLogger(__name__)

PANELS = 4  # of a plot, side by side


def figure_field(title: str, unit: str) -> Any:
    return field(metadata=dict(title=title, unit=unit))


@dataclass(frozen=True)
class PolicyOutcome:
    """One policy's figures. None: unknown, as memory without CUDA, or likeness if numbers are not finite."""

    policy: str
    used: str  # the policy as the device supports it
    t3_tokens_per_s: float = figure_field("T3", "tokens/s")
    s3gen_x_realtime: float = figure_field("S3Gen", "x real time")
    job_x_realtime: float = figure_field("whole job", "x real time")
    peak_gib: float | None = figure_field("peak memory of the job", "GiB")
    steady_gib: float | None = figure_field("memory after the job", "GiB")
    weights_gib: float = figure_field("weights", "GiB")
    t3_agreement: float | None = figure_field("T3 has FP32's likeliest token", "share")
    t3_kl_nats: float | None = figure_field("KL of T3 from FP32", "nats")
    flow_distance_db: float | None = figure_field("flow's mels from FP32's", "dB")
    mel_distance_db: float | None = figure_field("the audio's mels from FP32's", "dB")
    speaker_cosine: float | None = figure_field("speaker's likeness to FP32's", "cosine")
    checks_failed: int = figure_field("checks failed", "utterances")


FIGURES: tuple[Field, ...] = tuple(f for f in fields(PolicyOutcome) if f.metadata)
COLUMNS = tuple(f.name for f in fields(PolicyOutcome))


def to_figures(outcomes: Sequence[PolicyOutcome], hardware: str, settings: dict[str, Any]) -> list[Figure]:
    """Figures of a benchmark, one for each value that is not None."""
    made = Figures("precision", hardware, settings)
    for outcome in outcomes:
        for f in FIGURES:
            if (value := getattr(outcome, f.name)) is not None:
                what = f"{outcome.policy}: {f.metadata['title']}"
                made.add(what, value, f.metadata["unit"], policy=outcome.policy, precision=outcome.used)
    return made.figures


def cells(outcomes: Sequence[PolicyOutcome]) -> list[tuple[Any, ...]]:
    """Rows of a table with `COLUMNS`."""
    return [astuple(outcome) for outcome in outcomes]


def save_outcomes(folder: Path, outcomes: Sequence[PolicyOutcome]) -> None:
    """Write `precision.csv`, and `precision.png` if matplotlib is installed; both replace older files."""
    write_durably(folder / "precision.csv", lambda temporary: _write_csv(temporary, outcomes))
    plot = folder / "precision.png"
    plot.unlink(missing_ok=True)  # an older plot would contradict the CSV
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        log.info("no plot: matplotlib is missing; pip install 'chatterbox-batch[plot]'")
        return
    write_durably(plot, lambda temporary: _draw(temporary, outcomes))


def _write_csv(path: Path, outcomes: Sequence[PolicyOutcome]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *cells(outcomes)])


def _draw(path: Path, outcomes: Sequence[PolicyOutcome]) -> None:
    """One panel for each figure, one bar for each policy. Figures that no policy has are left out."""
    from matplotlib.figure import Figure

    shown = [f for f in FIGURES if any(getattr(outcome, f.name) is not None for outcome in outcomes)]
    lines = math.ceil(len(shown) / PANELS)
    plot = Figure(figsize=(3.4 * PANELS, 0.8 + (0.6 + 0.3 * len(outcomes)) * lines), layout="constrained")
    panels = plot.subplots(lines, PANELS, squeeze=False).flat
    for panel, f in zip(panels, shown, strict=False):
        values = [getattr(outcome, f.name) for outcome in outcomes]
        bars = panel.barh([outcome.policy for outcome in outcomes], [value or 0 for value in values])
        panel.bar_label(bars, ["none" if value is None else f"{value:.4g}" for value in values], padding=2)
        panel.set_title(f"{f.metadata['title']} ({f.metadata['unit']})", fontsize="medium")
        panel.set_xlim(0, 1.4 * max(*(value or 0 for value in values), 1e-9))  # room for the labels
        panel.set_xticks([])
        panel.invert_yaxis()
    for panel in list(plot.axes)[len(shown) :]:
        panel.set_axis_off()
    plot.savefig(path, format="png", dpi=120)
