"""How fast the engine is on this machine, beside stock Chatterbox on the same weights and lengths, in the same process.

python -m jobs.benchmark book=alice.txt stage=t3 engine.checkpoint=stand-in
python -m jobs.benchmark run=outputs/mybook stage=precision sample=64
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from jobs.cli import Stop, main
from jobs.generate import generate, open_tracker
from jobs.options import policies, recorded
from pipeline.benchmark.table import Row, save, show
from pipeline.book.reader import read_book
from pipeline.book.segment import segment
from pipeline.config import BenchmarkConfig, GenerateConfig
from pipeline.engine import NO_IDENTITY, Engine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError
from pipeline.plan import Planned, choose, make_plan
from pipeline.store import RunFolder
from pipeline.store.edition import read_edition
from pipeline.telemetry.record import read_records

log = logging.getLogger(__name__)

OF_THE_RUN = ("voice", "sampling", "text", "check", "watermark")  # options; of engine and device, see `of_run`
OF_THE_MACHINE = ("batch_size", "memory", "cache")  # options of an engine


def benchmark(config: BenchmarkConfig, stop: Stop) -> int:
    """Measure one stage; its rows replace those of that stage in `benchmark.json`."""
    refuse_contradictions(config)
    if config.run:
        config = of_run(config, RunFolder(Path(config.run)))
    if config.engine.name != "chatterbox":
        raise UserError(f"engine={config.engine.name} has no stages to measure; engine=chatterbox has")
    book = choose(plan(config), config)
    engine = build_engine(config)
    engine.prepare()
    folder = RunFolder(Path(config.out))
    with folder.writing():
        folder.root.mkdir(parents=True, exist_ok=True)
    rows = measure(engine, book, config, stop)
    with folder.writing():
        log.info("kept in %s", save(folder.root, rows))
    print(show(rows))
    return 0


def refuse_contradictions(config: BenchmarkConfig) -> None:
    if config.run is None and config.sample is not None:
        raise UserError(f"sample={config.sample} is of run=; beside book= say utterances={config.sample}")
    if config.run is None and config.book is None:
        raise UserError("book= is missing, or run= with stage=precision; --help shows how")
    if config.run is not None and config.book is not None:
        raise UserError(f"book={config.book} and run={config.run} both say what is spoken; leave one out")
    if config.run is not None and config.stage != "precision":
        raise UserError(f"run={config.run} is for stage=precision; stage={config.stage} wants book=")


def of_run(config: BenchmarkConfig, folder: RunFolder) -> BenchmarkConfig:
    """`config` with the weights, the voice and whatever else decided how the speech in `folder` sounds."""
    run = newest_options(folder)
    machine = [f for f in fields(config.engine) if f.name in OF_THE_MACHINE]
    own = {f.name: value for f in machine if (value := getattr(config.engine, f.name)) != f.default}
    return replace(
        config,
        engine=replace(run.engine, **own) if run.engine.name == config.engine.name else run.engine,
        device=run.device if config.device == "auto" else config.device,
        utterances=config.sample or config.utterances,
        **{name: getattr(run, name) for name in OF_THE_RUN},
    )


def newest_options(folder: RunFolder) -> GenerateConfig:
    """Those of the newest run record that can be read."""
    for record in read_records(folder.root):
        try:
            return recorded(record.get("config"))
        except UserError as error:
            log.warning("a record of %s is passed over: %s", folder.root, error)
    raise UserError(f"run={folder.root} has no run record that can be read; give a folder that jobs.generate wrote")


def plan(config: BenchmarkConfig) -> Sequence[Planned]:
    """Of the run, or of the book, where no speech is kept that keys could name."""
    if not config.run:
        return make_plan(segment(read_book(config.book), config.text), NO_IDENTITY, config)
    if edition := read_edition(RunFolder(Path(config.run))):
        return edition.planned
    raise UserError(f"run={config.run} has no plan that can be read; run jobs.generate into it, then this again")


def measure(engine: Engine, book: Sequence[Planned], config: BenchmarkConfig, stop: Stop) -> list[Row]:
    from pipeline.benchmark import job, s3gen, t3
    from pipeline.benchmark.sample import sample

    def render(changed: BenchmarkConfig, engine: Engine) -> None:
        generate(changed, stop, engine)
        if stop():  # half a job has no speed
            raise SystemExit(128 + stop.signum)

    planned = sample(book, config.utterances, config.seed)
    if config.stage == "precision":
        return measure_precision(engine, planned, config, render)
    if config.stage == "job":
        return job.measure(book, planned, config, render)
    return {"t3": t3, "s3gen": s3gen}[config.stage].measure(engine, planned, config)


def measure_precision(
    engine: Engine,
    planned: Sequence[Planned],
    config: BenchmarkConfig,
    render: Callable[[BenchmarkConfig, Engine], None],
) -> list[Row]:
    """Beside the rows a CSV, a plot, and a table in W&B."""
    from pipeline.benchmark import outcome, precision
    from pipeline.benchmark.machine import hardware

    outcomes = precision.measure(planned, config, policies(), render)
    folder = RunFolder(Path(config.out))
    with folder.writing():
        outcome.keep(folder.root, outcomes)
    tracker = open_tracker(config, folder)
    tracker.table("precision", outcome.COLUMNS, outcome.cells(outcomes))
    tracker.finish({})
    settings = dict(checkpoint=engine.identity.model, speaker=engine.identity.speaker, run=config.run)
    settings |= dict(flow_steps=config.engine.flow_steps, utterances=len(planned))
    return outcome.rows(outcomes, hardware(engine.models.device), settings)


if __name__ == "__main__":
    main("benchmark", BenchmarkConfig, benchmark)
