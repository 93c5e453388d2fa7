"""How fast the engine is on this machine, beside stock Chatterbox on the same weights and lengths, in the same process.

python -m jobs.benchmark book=alice.txt stage=t3 engine.checkpoint=stand-in
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import Stop, main
from pipeline.book.reader import read_book
from pipeline.book.segment import segment
from pipeline.config import BenchmarkConfig
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError
from pipeline.plan import Planned, choose, make_plan
from pipeline.store import RunFolder

log = logging.getLogger(__name__)


def benchmark(config: BenchmarkConfig, stop: Stop) -> int:
    """Measure one stage; its rows replace those of that stage in `benchmark.json`."""
    if config.engine.name != "chatterbox":
        raise UserError(f"engine={config.engine.name} has no stages to measure; engine=chatterbox has")
    book = read_book(config.book)
    engine = build_engine(config)
    engine.prepare()
    planned = choose(make_plan(segment(book, config.text), engine.identity, config), config)
    from pipeline.benchmark.t3 import measure
    from pipeline.benchmark.table import save, show

    rows = measure(engine, sample(planned, config.utterances, config.seed), config)
    print(show(rows))
    folder = RunFolder(Path(config.out))
    with folder.writing():
        folder.root.mkdir(parents=True, exist_ok=True)
        log.info("kept in %s", save(folder.root, rows))
    return 0


def sample(planned: Sequence[Planned], count: int, seed: int) -> list[Planned]:
    """So many of them, longest first, as a window of a job has them."""
    chosen = random.Random(seed).sample(planned, min(count, len(planned)))
    return sorted(chosen, key=lambda item: (-item.predicted_s, item.utterance.id))


if __name__ == "__main__":
    main("benchmark", BenchmarkConfig, benchmark)
