"""The main job: a book in, watermarked WAVs and a Parquet manifest out.

python -m jobs.generate book=mybook.txt
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from jobs.cli import Stop, main
from pipeline.book.reader import read_book
from pipeline.book.segment import segment
from pipeline.config import GenerateConfig
from pipeline.engine import NO_IDENTITY, Engine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError, WorkError
from pipeline.plan import Planned, choose, make_plan, parameters
from pipeline.report import plan_report
from pipeline.row import Rows
from pipeline.store import RunFolder
from pipeline.store.claim import claim
from pipeline.store.edition import Edition
from pipeline.store.index import Entry, is_done, read_index, spoilt
from pipeline.store.journal import Journal
from pipeline.store.manifest import merge
from pipeline.store.rollback import read_rollback
from pipeline.synthesize import Synthesizer
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.record import RunRecord
from pipeline.telemetry.tracker import NoTracker, Tracker, Wandb
from pipeline.watermark import Watermarker, build_watermarker
from pipeline.writer import Writer

log = logging.getLogger(__name__)


def generate(config: GenerateConfig, stop: Stop, engine: Engine | None = None) -> int:
    """Render what is not there yet; returns the exit code. `engine`: the one that `config` names, if it is there."""
    book = read_book(config.book)
    utterances = segment(book, config.text)
    if config.dry_run:
        planned = make_plan(utterances, NO_IDENTITY, config)
        print(plan_report(book, choose(planned, config), config))
        return 0
    engine = engine or build_engine(config)
    planned = make_plan(utterances, engine.identity, config)
    chosen = choose(planned, config)
    edition = Edition(
        os.path.abspath(config.book), book.text, book.unspoken, planned, engine.identity.speaker,
        parameters(engine.identity, config),
    )  # fmt: skip
    folder = RunFolder(Path(config.out or Path("outputs") / book.name))
    watermarker = None
    if unrendered(chosen, readable_index(folder), folder):  # checked before anything is written
        watermarker = prepare(engine, config)
    folder.create()
    failed = 0
    with folder.writing(), claim(folder, edition, config):
        index = read_index(folder)
        generation = 1 + max((entry.generation for entry in index.values()), default=0)
        with closing(Journal(folder.journal(config.shard, config.num_shards), generation)) as journal:
            pending = unrendered(chosen, drop_spoilt(chosen, index, folder), folder)
            log.info("%s: %d utterances, %d to render, into %s", book.name, len(chosen), len(pending), folder.root)
            if pending:
                watermarker = watermarker or prepare(engine, config)
            with stop.deferred():
                safer = read_rollback(folder, edition.params) if config.check.rollback_share < 1 else None
                if pending and safer:
                    log.info("an earlier run went over to precision %s, and so does this one", safer)
                    engine.use(safer)
                if pending:
                    failed = render(pending, engine, watermarker, folder, journal, config, stop)
                ok, _ = merge(folder, edition)
    log.info("%d of the book's %d utterances are in %s", ok, len(planned), folder.manifest)
    if failed > config.max_failures and not stop():
        raise WorkError(f"{failed} utterance(s) failed, max_failures={config.max_failures}; see {folder.failed}")
    return 0


def prepare(engine: Engine, config: GenerateConfig) -> Watermarker:
    """What can be wrong with device, weights and watermarker is told now."""
    engine.prepare()
    return build_watermarker(config.watermark, engine.device)


def readable_index(folder: RunFolder) -> dict[str, Entry]:
    try:
        return read_index(folder)
    except OSError as error:
        raise UserError(f"out={folder.root} cannot be read ({error}); choose another out=") from error


def unrendered(chosen: Sequence[Planned], index: Mapping[str, Entry], folder: RunFolder) -> list[Planned]:
    """What has no `ok` row with the same key, or has lost its WAV."""
    return [item for item in chosen if not is_done(index.get(item.utterance.id), item.key, folder)]


def drop_spoilt(chosen: Sequence[Planned], index: Mapping[str, Entry], folder: RunFolder) -> dict[str, Entry]:
    """`index` without those of `chosen` whose WAV was changed by someone else."""
    done = [item.utterance.id for item in chosen if is_done(index.get(item.utterance.id), item.key, folder)]
    bad = {entry.id for entry in spoilt((index[id] for id in done), folder)}
    for id in sorted(bad):
        log.warning("%s is not what was written; it will be rendered again", folder.root / index[id].file_name)
    return {id: entry for id, entry in index.items() if id not in bad}


def render(
    pending: Sequence[Planned],
    engine: Engine,
    watermarker: Watermarker,
    folder: RunFolder,
    journal: Journal,
    config: GenerateConfig,
    stop: Stop,
) -> int:
    """Render `pending` with progress, tracker and run record around it; returns how many utterances failed."""
    record = RunRecord(folder.root, config)
    record.write("running", identity=asdict(engine.identity), to_render=len(pending))
    telemetry = Telemetry(len(pending), open_tracker(config, folder))
    state = "failed"
    try:
        with Writer(Rows(config, engine.identity, engine.sample_rate), folder, journal) as writer:
            Synthesizer(config, engine, watermarker, writer, telemetry, stop).run(pending)
        state = "stopped" if stop() else "ended"
    finally:
        summary = telemetry.finish()
        record.write(state, identity=asdict(engine.identity), in_use=engine.in_use(), summary=summary)
    return summary["failed"]


def open_tracker(config: GenerateConfig, folder: RunFolder) -> Tracker:
    if config.wandb.mode == "disabled":
        return NoTracker()
    return Wandb(config.wandb, folder.root, f"{config.shard}-of-{config.num_shards}", asdict(config))


if __name__ == "__main__":
    main("generate", GenerateConfig, generate)
