"""Measure the engine on this machine, and stock Chatterbox with the same weights and lengths in the same process.

python -m jobs.benchmark book=alice.txt stage=t3 engine.checkpoint=stand-in
python -m jobs.benchmark book=alice.txt stage=start engine.checkpoint=stand-in
python -m jobs.benchmark run=outputs/mybook stage=precision sample=64
"""

import logging
from dataclasses import fields, replace
from pathlib import Path

from jobs.arguments import to_arguments
from jobs.cli import main
from jobs.options import read_policies
from pipeline.benchmark.job_config import job_config
from pipeline.benchmark.table import Figure, save, to_table
from pipeline.config import BenchmarkConfig, GenerateConfig
from pipeline.errors import UserError
from pipeline.run.stop import Stop
from pipeline.store import RunFolder
from pipeline.store.finished import FinishedRun, open_run

log = logging.getLogger(__name__)

OF_THE_RUN = (
    "voice",
    "sampling",
    "text",
    "check",
    "watermark",
)  # options taken from the run; for engine and device see `use_run`
OF_THE_MACHINE = ("batch_size", "memory", "cache")  # engine options that the run does not decide


def benchmark(config: BenchmarkConfig, stop: Stop) -> int:
    """Measure one stage. Its figures replace older ones of the same stage in `benchmark.json`."""
    refuse_contradictions(config)
    run = open_run(config.run) if config.run else None
    if run:
        config = use_run(config, run.config)
    if config.engine.name != "chatterbox":
        raise UserError(f"engine={config.engine.name} has no stages to measure; engine=chatterbox has")
    folder = RunFolder(Path(config.out))
    folder.check()
    with folder.writing():
        folder.root.mkdir(parents=True, exist_ok=True)
    figures = measure(config, run, stop)
    with folder.writing():
        log.info("kept in %s", save(folder.root, figures))
    print(to_table(figures))
    return 0


def measure(config: BenchmarkConfig, run: FinishedRun | None, stop: Stop) -> list[Figure]:
    if config.stage == "start":  # its jobs are to be the first that import torch
        from pipeline.benchmark import start

        return start.measure(to_arguments(job_config(config, Path(config.out))), config)
    from pipeline.benchmark.measure import measure_stage

    return measure_stage(config, run, read_policies(), stop)


def refuse_contradictions(config: BenchmarkConfig) -> None:
    """`UserError` if `book`, `run`, `sample` and `stage` do not fit together."""
    if config.run is None and config.sample is not None:
        raise UserError(f"sample={config.sample} is of run=; beside book= say utterances={config.sample}")
    if config.run is None and config.book is None:
        raise UserError("book= is missing, or run= with stage=precision; --help shows how")
    if config.run is not None and config.book is not None:
        raise UserError(f"book={config.book} and run={config.run} both say what is spoken; leave one out")
    if config.run is not None and config.stage != "precision":
        raise UserError(f"run={config.run} is for stage=precision; stage={config.stage} wants book=")


def use_run(config: BenchmarkConfig, of_run: GenerateConfig) -> BenchmarkConfig:
    """`config` with the run's weights, voice and all other options that change its speech."""
    machine = [f for f in fields(config.engine) if f.name in OF_THE_MACHINE]
    own = {f.name: value for f in machine if (value := getattr(config.engine, f.name)) != f.default}
    return replace(
        config,
        engine=replace(of_run.engine, **own) if of_run.engine.name == config.engine.name else of_run.engine,
        device=of_run.device if config.device == "auto" else config.device,
        utterances=config.sample or config.utterances,
        **{name: getattr(of_run, name) for name in OF_THE_RUN},
    )


if __name__ == "__main__":
    main("benchmark", BenchmarkConfig, benchmark)
