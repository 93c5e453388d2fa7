"""How fast the engine is on this machine, beside stock Chatterbox on the same weights and lengths, in the same process.

python -m jobs.benchmark book=alice.txt stage=t3 engine.checkpoint=stand-in
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import Stop, main
from jobs.generate import generate
from pipeline.benchmark.table import Row, save, show
from pipeline.book.reader import read_book
from pipeline.book.segment import segment
from pipeline.config import BenchmarkConfig
from pipeline.engine import Engine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError
from pipeline.plan import Planned, choose, make_plan
from pipeline.store import RunFolder

log = logging.getLogger(__name__)


def benchmark(config: BenchmarkConfig, stop: Stop) -> int:
    """Measure one stage; its rows replace those of that stage in `benchmark.json`."""
    if config.engine.name != "chatterbox":
        raise UserError(f"engine={config.engine.name} has no stages to measure; engine=chatterbox has")
    text = read_book(config.book)
    engine = build_engine(config)
    engine.prepare()
    book = choose(make_plan(segment(text, config.text), engine.identity, config), config)
    folder = RunFolder(Path(config.out))
    with folder.writing():
        folder.root.mkdir(parents=True, exist_ok=True)
    rows = measure(engine, book, config, stop)
    with folder.writing():
        log.info("kept in %s", save(folder.root, rows))
    print(show(rows))
    return 0


def measure(engine: Engine, book: Sequence[Planned], config: BenchmarkConfig, stop: Stop) -> list[Row]:
    from pipeline.benchmark import job, s3gen, t3
    from pipeline.benchmark.sample import sample

    planned = sample(book, config.utterances, config.seed)
    if config.stage == "job":

        def render(changed: BenchmarkConfig, engine: Engine) -> None:
            generate(changed, stop, engine)
            if stop():  # half a job has no speed
                raise SystemExit(128 + stop.signum)

        return job.measure(book, planned, config, render)
    return {"t3": t3, "s3gen": s3gen}[config.stage].measure(engine, planned, config)


if __name__ == "__main__":
    main("benchmark", BenchmarkConfig, benchmark)
