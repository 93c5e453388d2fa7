"""The main job: a book in, watermarked WAVs and a Parquet manifest out.

python -m jobs.generate book=mybook.txt
"""

import logging
from collections.abc import Sequence
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
from pipeline.plan import Planned, choose, make_plan
from pipeline.report import plan_report
from pipeline.store import RunFolder
from pipeline.store.claim import claim
from pipeline.store.journal import Journal
from pipeline.store.manifest import is_done, latest, merge
from pipeline.synthesize import Synthesizer
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.record import RunRecord
from pipeline.telemetry.tracker import NoTracker, Tracker, Wandb
from pipeline.watermark import Watermarker, build_watermarker

log = logging.getLogger(__name__)


def generate(config: GenerateConfig, stop: Stop) -> int:
    """Render what is not there yet; returns the exit code."""
    book = read_book(config.book)
    utterances = segment(book, config.text)
    if config.dry_run:
        planned = make_plan(utterances, NO_IDENTITY, config)
        print(plan_report(book, choose(planned, config), config))
        return 0
    engine = build_engine(config)
    planned = make_plan(utterances, engine.identity, config)
    chosen = choose(planned, config)
    folder = RunFolder(Path(config.out or Path("outputs") / book.name))
    watermarker = None
    if unrendered(chosen, folder):  # checked before anything is written
        watermarker = prepare(engine, config)
    folder.create()
    failed = 0
    with folder.writing(), claim(folder, config.num_shards, Path(config.book), planned):
        generation = 1 + max((row["generation"] for row in latest(folder).values()), default=0)
        with closing(Journal(folder.journal(config.shard, config.num_shards), generation)) as journal:
            pending = unrendered(chosen, folder)
            log.info("%s: %d utterances, %d to render, into %s", book.name, len(chosen), len(pending), folder.root)
            if pending:
                watermarker = watermarker or prepare(engine, config)
                failed = render(pending, engine, watermarker, folder, journal, config, stop)
        ok, _ = merge(folder, planned, engine.identity.speaker)
    log.info("%d of the book's %d utterances are in %s", ok, len(planned), folder.manifest)
    if failed > config.max_failures and not stop():
        raise WorkError(f"{failed} utterance(s) failed, max_failures={config.max_failures}; see {folder.failed}")
    return 0


def prepare(engine: Engine, config: GenerateConfig) -> Watermarker:
    """What can be wrong with device, weights and watermarker is told now."""
    engine.prepare()
    return build_watermarker(config.watermark)


def unrendered(chosen: Sequence[Planned], folder: RunFolder) -> list[Planned]:
    """What has no `ok` row with the same key, or has lost its WAV."""
    try:
        rows = latest(folder)
        return [item for item in chosen if not is_done(rows.get(item.utterance.id), item.key, folder)]
    except OSError as error:
        raise UserError(f"out={folder.root} cannot be read ({error}); choose another out=") from error


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
        with stop:
            Synthesizer(config, engine, watermarker, folder, journal, telemetry, stop).run(pending)
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
