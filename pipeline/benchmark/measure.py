"""Runs one stage of a benchmark: from the configuration to figures. Knows nothing of Hydra."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.benchmark import job, outcome, precision, s3gen, t3
from pipeline.benchmark.machine import hardware_name
from pipeline.benchmark.sample import draw_sample
from pipeline.benchmark.table import Figure
from pipeline.config import BenchmarkConfig, Precision
from pipeline.data import NO_IDENTITY
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned, choose, make_plan, parameters
from pipeline.run.stop import Stop
from pipeline.store import RunFolder
from pipeline.store.finished import FinishedRun
from pipeline.telemetry.tracker import open_tracker
from pipeline.text.reader import read_book
from pipeline.text.segment import segment


def measure_stage(
    config: BenchmarkConfig, run: FinishedRun | None, policies: Mapping[str, Precision], stop: Stop
) -> list[Figure]:
    """The figures of `config.stage`, on the texts of `run` or of `config.book`."""
    book = choose(run.snapshot.planned if run else _plan_book(config), config.chapters)
    engine = build_engine(config)
    engine.prepare()
    planned = draw_sample(book, config.utterances, config.seed)
    if config.stage == "precision":
        return _measure_precision(engine, planned, config, policies, stop)
    if config.stage == "job":
        return job.measure(book, planned, config, stop)
    return {"t3": t3, "s3gen": s3gen}[config.stage].measure(engine, planned, config)


def _plan_book(config: BenchmarkConfig) -> Sequence[Planned]:
    """Plan the whole book. Keys do not matter here: no speech is kept."""
    utterances = segment(read_book(config.book), config.text)
    return make_plan(utterances, parameters(NO_IDENTITY, config), config.plan.chars_per_second)


def _measure_precision(
    engine: ChatterboxEngine,
    planned: Sequence[Planned],
    config: BenchmarkConfig,
    policies: Mapping[str, Precision],
    stop: Stop,
) -> list[Figure]:
    """Measure policies; also write a CSV and a plot, and a table to W&B."""
    outcomes = precision.measure(planned, config, policies, stop)
    folder = RunFolder(Path(config.out))
    with folder.writing():
        outcome.save_outcomes(folder.root, outcomes)
    tracker = open_tracker(config.wandb, folder.root, "benchmark", {})
    tracker.table("precision", outcome.COLUMNS, outcome.cells(outcomes))
    tracker.finish({})
    settings = dict(checkpoint=engine.identity.model, speaker=engine.identity.speaker, run=config.run)
    settings |= dict(flow_steps=config.engine.flow_steps, utterances=len(planned))
    return outcome.to_figures(outcomes, hardware_name(engine.residency.models.device), settings)
