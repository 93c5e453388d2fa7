"""One process's work on a run folder: what is missing, the lock, the journal, the render loop, the manifest.

Knows nothing of how speech is made, checked or retried.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.engine.protocol import Engine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError
from pipeline.plan import Planned, choose, make_plan, parameters
from pipeline.run.loop import RenderLoop
from pipeline.run.retry import safest
from pipeline.run.row import RowMaker
from pipeline.run.stop import Stop
from pipeline.run.writer import Writer
from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_shared
from pipeline.store.index import Index, changed_on_disk, is_done, read_index
from pipeline.store.journal import Journal
from pipeline.store.manifest import merge
from pipeline.store.plan_snapshot import PlanSnapshot, write_snapshot
from pipeline.store.reuse import find_reusable, take_over
from pipeline.store.rollback import read_rollbacks
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.record import RunRecord
from pipeline.telemetry.tracker import open_tracker
from pipeline.text.reader import read_book
from pipeline.text.segment import segment
from pipeline.watermark import Watermarker, build_watermarker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a call of `run_book`."""

    folder: RunFolder
    planned: int  # utterances of the whole book
    ok: int  # of the whole book, in the manifest
    failed: int  # of those that this process rendered
    summary: dict[str, Any] = field(default_factory=dict)  # figures of this process; empty: it rendered nothing


def run_book(config: GenerateConfig, stop: Stop, engine: Engine | None = None) -> Outcome:
    """Render what is missing of a book, and write the manifest.

    `engine` is the one that `config` names, if the caller has it already. Once `stop` is true, what is in flight is
    finished, and the manifest is complete so far. `UserError` for wrong options or input, before anything is written;
    `WorkError` if the disk or the device gives up.
    """
    book = read_book(config.book)
    utterances = segment(book, config.text)
    engine = engine or build_engine(config)
    params = parameters(engine.identity, config)
    planned = make_plan(utterances, params, config.plan.chars_per_second)
    chosen = choose(planned, config.chapters, config.limit, config.shard, config.num_shards)
    snapshot = PlanSnapshot(
        os.path.abspath(config.book), book.text, book.unspoken, planned, engine.identity.speaker, params
    )
    folder = RunFolder(Path(config.out or Path("outputs") / book.name))
    prepare = cache(partial(_prepare, engine, config))
    if _will_render(chosen, folder):
        prepare()  # device, weights and watermarker may be wrong, and nothing is written yet
    folder.create()
    with folder.writing():
        return _render_missing(config, chosen, snapshot, folder, engine, prepare, stop)


def _prepare(engine: Engine, config: GenerateConfig) -> Watermarker:
    """`UserError` for what is wrong with device, weights or watermarker."""
    engine.prepare()
    return build_watermarker(config.watermark, engine.device)


def _will_render(chosen: Sequence[Planned], folder: RunFolder) -> bool:
    """As far as journals and the lengths of files tell."""
    try:
        index = read_index(folder)
    except OSError as error:
        raise UserError(f"out={folder.root} cannot be read ({error}); choose another out=") from error
    reusable = {item.key for item, _ in find_reusable(chosen, index, folder)}
    return any(item.key not in reusable for item in _undone(chosen, index, folder))


def _render_missing(
    config: GenerateConfig,
    chosen: Sequence[Planned],
    snapshot: PlanSnapshot,
    folder: RunFolder,
    engine: Engine,
    prepare: Callable[[], Watermarker],
    stop: Stop,
) -> Outcome:
    """With the folder locked: take over, render, merge."""
    cut = dict(num_shards=config.num_shards, chapters=config.chapters, limit=config.limit)
    path = folder.journal(config.shard, config.num_shards)
    with lock_shared(folder, snapshot.digest, cut, partial(_prepare_folder, folder, snapshot, path)):
        index = read_index(folder)
        with closing(Journal(path, index.next_generation)) as journal:
            _drop_changed(chosen, index, folder)
            pending = _undone(chosen, index, folder)
            log.info("%d utterances, %d to render, into %s", len(chosen), len(pending), folder.root)
            with stop.deferred():
                summary: dict[str, Any] = {}
                if pending:
                    watermarker = prepare()
                    _use_rolled_back(engine, folder, snapshot, config)
                    summary = _render(pending, engine, watermarker, folder, journal, config, stop)
                ok, _ = merge(folder, snapshot)
    log.info("%d of the book's %d utterances are in %s", ok, len(snapshot.planned), folder.manifest)
    return Outcome(folder, len(snapshot.planned), ok, summary.get("failed", 0), summary)


def _prepare_folder(folder: RunFolder, snapshot: PlanSnapshot, path: Path) -> None:
    """Keep the plan, and take over what is durable under other ids. Only one process of a run does this, alone."""
    write_snapshot(folder, snapshot)
    index = read_index(folder)
    with closing(Journal(path, index.next_generation)) as journal:
        if taken := take_over(snapshot.planned, index, folder, journal):
            log.info("the speech of %d moved utterance(s) is taken over", taken)


def _undone(chosen: Sequence[Planned], index: Index, folder: RunFolder) -> list[Planned]:
    return [item for item in chosen if not is_done(index.get(item.utterance.id), item.key, folder)]


def _drop_changed(chosen: Sequence[Planned], index: Index, folder: RunFolder) -> None:
    """Take out of the index what of `chosen` is no longer what was written."""
    done = [item.utterance.id for item in chosen if is_done(index.get(item.utterance.id), item.key, folder)]
    for entry in sorted(changed_on_disk((index[id] for id in done), folder), key=lambda entry: entry.id):
        log.warning("%s is not what was written; it will be rendered again", folder.root / entry.file_name)
        del index[entry.id]


def _use_rolled_back(engine: Engine, folder: RunFolder, snapshot: PlanSnapshot, config: GenerateConfig) -> None:
    """Begin with the precision that an earlier process of this run went over to."""
    if config.check.rollback_share < 1 and (safer := safest(read_rollbacks(folder, snapshot.params))):
        log.info("an earlier run went over to precision %s, and so does this one", safer)
        engine.use(safer)


def _render(
    pending: Sequence[Planned],
    engine: Engine,
    watermarker: Watermarker,
    folder: RunFolder,
    journal: Journal,
    config: GenerateConfig,
    stop: Stop,
) -> dict[str, Any]:
    """Render `pending` with progress, tracker and run record around it; returns the figures."""
    record = RunRecord(folder.root, config)
    record.write("running", identity=asdict(engine.identity), to_render=len(pending))
    tracker = open_tracker(config.wandb, folder.root, f"{config.shard}-of-{config.num_shards}", asdict(config))
    telemetry = Telemetry(len(pending), tracker)
    state = "failed"
    try:
        with Writer(RowMaker(config, engine.identity), folder, journal) as writer:
            RenderLoop(config, engine, watermarker, writer, telemetry, stop).run(pending)
        state = "stopped" if stop() else "ended"
    finally:
        summary = telemetry.finish()
        record.write(state, identity=asdict(engine.identity), in_use=engine.in_use(), summary=summary)
    return summary
