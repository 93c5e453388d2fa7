"""A book's plan, and what of it a process renders: all that is known before an engine does anything.

Knows nothing of journals or workers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import GenerateConfig
from pipeline.engine.protocol import Engine
from pipeline.engine.registry import build_engine
from pipeline.plan import Planned, choose, make_plan, parameters
from pipeline.store import RunFolder
from pipeline.store.plan_snapshot import PlanSnapshot
from pipeline.text.reader import name_book, read_book
from pipeline.text.segment import segment


@dataclass(frozen=True)
class BookPlan:
    folder: RunFolder
    snapshot: PlanSnapshot  # of the whole book
    chosen: Sequence[Planned]  # what this process renders


def plan_book(config: GenerateConfig, engine: Engine | None = None) -> BookPlan:
    """Read the book and plan it. `engine` is the one that `config` names, if the caller has it already.

    Imports no torch. `UserError` for wrong options or input; nothing is written.
    """
    book = read_book(config.book)
    utterances = segment(book, config.text)
    identity = (engine or build_engine(config)).identity
    params = parameters(identity, config)
    planned = make_plan(utterances, params, config.plan.chars_per_second)
    chosen = choose(planned, config.chapters, config.limit, config.shard, config.num_shards)
    source = os.path.abspath(config.book)
    snapshot = PlanSnapshot(source, book.text, book.unspoken, planned, identity.speaker, params)
    return BookPlan(find_folder(config), snapshot, chosen)


def find_folder(config: GenerateConfig) -> RunFolder:
    """Where a job renders to."""
    return RunFolder(Path(config.out or Path("outputs") / name_book(config.book)))
