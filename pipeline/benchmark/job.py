"""Whole jobs: seconds of speech a second, from a book to durable WAVs and a manifest, beside stock; where time goes.

What runs a job is given to it. Knows nothing of Hydra.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import torch

from pipeline.benchmark.machine import busy, hardware, timed
from pipeline.benchmark.sample import requests_of, spread
from pipeline.benchmark.stages import alone, stages
from pipeline.benchmark.stock import Stock
from pipeline.benchmark.table import Row, Rows
from pipeline.config import BenchmarkConfig
from pipeline.engine import Engine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.store import RunFolder

log = logging.getLogger(__name__)

ABOUT_10_S = (9.0, 11.0)
SHORT_PROMPT_S = 6.0
ANY = 10**9  # failed utterances: figures are wanted all the same
WARM_UP = 64  # utterances, which fill a pack
Render = Callable[[BenchmarkConfig, Engine], None]  # a whole job into config.out, with an engine that is there


@dataclass(frozen=True)
class Run:
    """What a job took."""

    audio_s: float
    wall_s: float
    busy: float | None  # share of the time in which a GPU worked


def measure(book: Sequence[Planned], planned: Sequence[Planned], config: BenchmarkConfig, render: Render) -> list[Row]:
    """Jobs on the whole `book` and on others like it; stages and stock on the sample `planned`, longest first."""
    engine = build_engine(config)
    engine.prepare()
    settings = dict(precision=str(engine.precision), checkpoint=engine.identity.model)
    rows = Rows("job", hardware(engine.models.device), settings | dict(flow_steps=config.engine.flow_steps))
    stock = Stock(engine).x_realtime(spread(requests_of(engine, planned, config), config.stock_utterances))
    log.info("stock: %.2f x real time", stock)
    with tempfile.TemporaryDirectory(dir=config.out, prefix="runs-") as made:
        folder = Path(made)
        first = run_job(config, engine, folder / "first", render)
        run = run_job(config, engine, folder / "again", render)
        _tell(rows, "as segmented", run, stock)
        rows.add("first start, weights loaded, graphs captured", first.wall_s - run.wall_s, "s")
        others = {"one sentence an utterance": replace(config, text=replace(config.text, join_chars=0))}
        if ten := [item.utterance.text for item in book if ABOUT_10_S[0] <= item.predicted_s <= ABOUT_10_S[1]]:
            (folder / "ten.txt").write_text("\n\n".join(ten))
            others["10 s utterances"] = replace(config, book=str(folder / "ten.txt"), chapters=None)
        for name, changed in others.items():
            _tell(rows, name, run_job(changed, engine, folder / name, render), stock)
        for name, speed in stages(engine, planned, config, folder).items():
            rows.add(f"{name} alone", speed, "x real time", utterances=len(planned))
        voice = replace(config.voice, path=str(_clip(RunFolder(folder / "again"))), prompt_seconds=SHORT_PROMPT_S)
        del engine  # its memory is wanted
        changed = replace(config, voice=voice)
        engine = _warm(changed, planned)
        stock = Stock(engine).x_realtime(spread(requests_of(engine, planned, config), config.stock_utterances))
        _tell(rows, "6 s prompt", run_job(changed, engine, folder / "6 s prompt", render), stock)
        del engine
    rows.add("10 s of speech, text to samples, batch 1", alone(config, planned), "s")
    return rows.made


def _tell(rows: Rows, name: str, run: Run, stock: float) -> None:
    rows.add(name, run.audio_s / run.wall_s, "x real time", stock, audio_s=run.audio_s, wall_s=run.wall_s)
    if run.busy is not None:
        rows.add(f"{name}: GPU busy, says nvidia-smi", run.busy, "share")


def run_job(config: BenchmarkConfig, engine: Engine, out: Path, render: Render) -> Run:
    """A whole job into `out`, however many utterances fail, of which no tracker hears."""
    with busy(torch.device(engine.device)) as share, timed(torch.device(engine.device)) as timer:
        check = replace(config.check, rollback_share=1.0)  # else the precision might become another one
        wandb = replace(config.wandb, mode="disabled")
        render(replace(config, out=str(out), wandb=wandb, check=check, max_failures=ANY), engine)
    audio_s = sum(pq.read_table(RunFolder(out).manifest, columns=["duration"])["duration"].to_pylist())
    run = Run(audio_s, timer.seconds, share.mean)
    log.info("%s: %s", out.name, run)
    return run


def _warm(config: BenchmarkConfig, planned: Sequence[Planned]) -> Engine:
    """An engine that has loaded, compiled and captured what it needs."""
    engine = build_engine(config)
    engine.prepare()
    list(engine.synthesize(requests_of(engine, planned[:WARM_UP], config), lambda: False))
    return engine


def _clip(folder: RunFolder) -> Path:
    """The longest recording of a run."""
    table = pq.read_table(folder.manifest, columns=["duration", "file_name"]).sort_by([("duration", "descending")])
    return folder.root / table["file_name"][0].as_py()
