"""The benchmark of whole jobs: speed from a book to durable WAVs and a manifest, of each stage alone, and of stock.

Speeds are seconds of speech per second. Knows nothing of Hydra.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.benchmark.job_config import job_config
from pipeline.benchmark.machine import hardware_name, measure_time, watch_gpu
from pipeline.benchmark.sample import make_requests, spread
from pipeline.benchmark.stages import measure_latency, measure_stages
from pipeline.benchmark.stock import Stock
from pipeline.benchmark.table import Figure, Figures
from pipeline.config import BenchmarkConfig
from pipeline.data import never
from pipeline.engine.protocol import Engine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned
from pipeline.run.session import run_book
from pipeline.run.stop import Stop
from pipeline.store.finished import FinishedRun, open_run

log = logging.getLogger(__name__)

ABOUT_10_S = (9.0, 11.0)
SHORT_PROMPT_S = 6.0
WARM_UP = 64  # utterances, enough to fill a pack


@dataclass(frozen=True)
class JobTime:
    """Seconds of speech that a job made, and its wall time."""

    audio_s: float
    wall_s: float
    gpu_busy: float | None  # share of the time in which a GPU worked
    windows: Sequence[Mapping[str, float]]  # figures of each window, as in the run record


def measure(book: Sequence[Planned], planned: Sequence[Planned], config: BenchmarkConfig, stop: Stop) -> list[Figure]:
    """Measure jobs on the whole `book` and variants of it, stages and stock on the sample `planned`, longest first."""
    engine = build_engine(config)
    engine.prepare()
    settings = dict(precision=str(engine.precision), checkpoint=engine.identity.model)
    figures = Figures(
        "job", hardware_name(engine.residency.models.device), settings | dict(flow_steps=config.engine.flow_steps)
    )
    stock = Stock(engine).x_realtime(spread(make_requests(engine, planned, config), config.stock_utterances))
    log.info("stock: %.2f x real time", stock)
    with tempfile.TemporaryDirectory(dir=config.out, prefix="runs-") as scratch:
        folder = Path(scratch)
        first = run_job(config, engine, folder / "first", stop)
        run = run_job(config, engine, folder / "again", stop)
        _add_run(figures, "as segmented", run, stock)
        figures.add("first start, weights loaded, graphs captured", first.wall_s - run.wall_s, "s")
        others = {"one sentence an utterance": replace(config, text=replace(config.text, join_chars=0))}
        if ten := [item.utterance.text for item in book if ABOUT_10_S[0] <= item.predicted_s <= ABOUT_10_S[1]]:
            (folder / "ten.txt").write_text("\n\n".join(ten))
            others["10 s utterances"] = replace(config, book=str(folder / "ten.txt"), chapters=None)
        for name, changed in others.items():
            _add_run(figures, name, run_job(changed, engine, folder / name, stop), stock)
        for name, speed in measure_stages(engine, planned, config, folder).items():
            figures.add(f"{name} alone", speed, "x real time", utterances=len(planned))
        clip = _longest_wav(open_run(folder / "again"))
        voice = replace(config.voice, path=str(clip), prompt_seconds=SHORT_PROMPT_S)
        del engine  # frees its memory for the next engine
        changed = replace(config, voice=voice)
        engine = _make_warm_engine(changed, planned)
        stock = Stock(engine).x_realtime(spread(make_requests(engine, planned, config), config.stock_utterances))
        _add_run(figures, "6 s prompt", run_job(changed, engine, folder / "6 s prompt", stop), stock)
        del engine
    figures.add("10 s of speech, text to samples, batch 1", measure_latency(config, planned), "s")
    return figures.figures


def _add_run(figures: Figures, name: str, run: JobTime, stock: float) -> None:
    figures.add(name, run.audio_s / run.wall_s, "x real time", stock, audio_s=run.audio_s, wall_s=run.wall_s)
    if run.gpu_busy is not None:
        figures.add(f"{name}: GPU busy, says nvidia-smi", run.gpu_busy, "share")


def run_job(config: BenchmarkConfig, engine: Engine, out: Path, stop: Stop) -> JobTime:
    """Run a whole job into `out`; failed utterances do not end it. A stop signal raises `SystemExit`."""
    with watch_gpu(torch.device(engine.device)) as gpu, measure_time(torch.device(engine.device)) as timer:
        outcome = run_book(job_config(config, out), stop, engine)
    if stop():  # half a job has no speed
        raise SystemExit(128 + stop.signum)
    run = JobTime(outcome.summary["audio_s"], timer.seconds, gpu.mean, outcome.summary["windows"])
    log.info("%s: %s", out.name, run)
    return run


def _make_warm_engine(config: BenchmarkConfig, planned: Sequence[Planned]) -> Engine:
    """An engine that has already loaded weights, compiled kernels and captured graphs."""
    engine = build_engine(config)
    engine.prepare()
    list(engine.synthesize(make_requests(engine, planned[:WARM_UP], config), never))
    return engine


def _longest_wav(run: FinishedRun) -> Path:
    """The longest WAV of a run."""
    return run.wav(max(run.rows(), key=lambda row: row["duration"]))
