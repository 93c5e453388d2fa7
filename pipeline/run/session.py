"""One process's work on a run folder: what is missing, the lock, the journal, the render loop, the manifest.

Knows nothing of how speech is made, checked or retried.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence, Set
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.engine.protocol import Engine
from pipeline.engine.registry import build_engine
from pipeline.errors import UserError
from pipeline.plan import Planned
from pipeline.run.book_plan import BookPlan, plan_book
from pipeline.run.loop import RenderLoop
from pipeline.run.retry import safest
from pipeline.run.row import RowMaker
from pipeline.run.stop import Stop
from pipeline.run.writer import Writer
from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_shared
from pipeline.store.index import CUT, Index, changed_on_disk, is_done, read_index
from pipeline.store.journal import Journal
from pipeline.store.manifest import merge
from pipeline.store.plan_snapshot import PlanSnapshot, read_snapshot, refuse_another_book, write_snapshot
from pipeline.store.replaced import explain, find_replaced
from pipeline.store.reuse import find_reusable, take_over
from pipeline.store.rollback import read_rollbacks
from pipeline.telemetry.progress import Telemetry
from pipeline.telemetry.record import RunRecord
from pipeline.telemetry.tracker import open_tracker
from pipeline.watermark import Watermarker, build_watermarker

log = logging.getLogger(__name__)

HASHED = 1024  # WAVs between two looks at whether to stop


@dataclass(frozen=True)
class Outcome:
    """What became of a call of `run_book`."""

    folder: RunFolder
    planned: int  # utterances of the whole book
    ok: int  # of the whole book, in the manifest
    failed: int  # of those that this process rendered
    summary: dict[str, Any] = field(default_factory=dict)  # figures of this process; empty: it rendered nothing


def run_book(
    config: GenerateConfig, stop: Stop, engine: Engine | None = None, plan: Callable[[], BookPlan] | None = None
) -> Outcome:
    """Render what is missing of a book, and write the manifest.

    `engine` is the one that `config` names, if the caller has it already; `plan` waits for a plan that another process
    makes. Once `stop` is true, what is in flight is finished, and the manifest is complete so far. `UserError` for
    wrong options or input, before anything is written; `WorkError` if the disk or the device gives up.
    """
    planned = plan() if plan else plan_book(config, engine)
    return Session(config, planned, engine or build_engine(config), stop).run()


@dataclass(frozen=True)
class Session:
    """One process's part of a run."""

    config: GenerateConfig
    plan: BookPlan
    engine: Engine
    stop: Stop

    @property
    def folder(self) -> RunFolder:
        return self.plan.folder

    @property
    def snapshot(self) -> PlanSnapshot:
        return self.plan.snapshot

    @property
    def chosen(self) -> Sequence[Planned]:
        """What this process renders."""
        return self.plan.chosen

    def run(self) -> Outcome:
        self.folder.check()
        index = self._read_index()
        missing = self._find_missing(index)
        reusable = find_reusable(self.snapshot.planned, index, self.folder)
        moved = [item for item, entry in reusable if entry.id != item.utterance.id]
        told = self._tell_replaced(index, {item.utterance.id for item in (*missing, *moved)})
        if {item.key for item in missing} - {item.key for item, _ in reusable}:  # by lengths; hashes come later
            self._prepare_engine()  # device, weights and watermarker may be wrong, and nothing is written yet
        cut = {name: getattr(self.config, name) for name in ("num_shards", "chapters", "limit")}
        with self.stop.deferred(), self.folder.writing():  # from here on files are written, none of which stays half
            self.folder.create()
            if told:
                log.info(told)
            with lock_shared(self.folder, self.snapshot.digest, cut, self._prepare_folder):
                return self._render_missing()

    def _read_index(self) -> Index:
        try:
            return read_index(self.folder)
        except OSError as error:
            raise UserError(f"out={self.folder.root} cannot be read ({error}); choose another out=") from error

    def _tell_replaced(self, index: Index, written: Set[str]) -> str:
        """What becomes of finished speech that is not today's; `written` are ids. `UserError` if it must stay."""
        replaced = find_replaced(self.snapshot, index, self.folder)
        here = [entry for entry in replaced if entry.id in written]
        left = len(replaced) - len(here) if self.config.num_shards == 1 else 0  # other shards tell their own
        told = [f"replacing {len(here)} finished utterance(s): {explain(here, self.snapshot)}"] if here else []
        if left:
            told.append(
                f"{left} finished utterance(s) outside of chapters= and limit= leave the manifest until rendered anew"
            )
        if told:
            refuse_another_book(self.folder, read_snapshot(self.folder), self.snapshot)  # this says more
        if told and not self.config.replace:
            raise UserError(f"replace=false refuses {'; '.join(told)}; say replace=true, or choose another out=")
        return "; ".join(told)

    def _prepare_engine(self) -> Watermarker:
        """`UserError` for what is wrong with device, weights or watermarker. A second call returns the same."""
        return self._watermarker

    @cached_property
    def _watermarker(self) -> Watermarker:
        self.engine.prepare()
        self._use_rolled_back()
        self.engine.begin_loading(self.config.sampling)
        return build_watermarker(self.config.watermark, self.engine.device)

    def _prepare_folder(self) -> None:
        """Keep the plan, and take over what is durable under other ids. One process of a run does this, alone."""
        write_snapshot(self.folder, self.snapshot)
        index = read_index(self.folder)
        with closing(self._open_journal(index)) as journal:
            if taken := take_over(self.snapshot.planned, index, self.folder, journal):
                log.info("the speech of %d moved utterance(s) is taken over", taken)
        self.stop.check()

    def _render_missing(self) -> Outcome:
        index, planned, folder = read_index(self.folder), len(self.snapshot.planned), self.folder
        with closing(self._open_journal(index)) as journal:
            _tell_lost_rows(index, self.chosen)
            self._drop_changed(index)
            vouched = {entry.id for entry in index.values() if entry.status == "ok"}
            pending = self._find_missing(index)
            log.info("%d utterances, %d to render, into %s", len(self.chosen), len(pending), folder.root)
            self.stop.check()
            summary = self._render(pending, journal, vouched) if pending else {}
            ok, _ = merge(folder, self.snapshot)
        log.info("%d of the book's %d utterances are in %s", ok, planned, folder.manifest)
        return Outcome(folder, planned, ok, summary.get("failed", 0), summary)

    def _open_journal(self, index: Index) -> Journal:
        path = self.folder.journal(self.config.shard, self.config.num_shards)
        return Journal(path, index.next_generation)

    def _find_missing(self, index: Index) -> list[Planned]:
        return [item for item in self.chosen if not is_done(index.get(item.utterance.id), item.key, self.folder)]

    def _drop_changed(self, index: Index) -> None:
        """Remove entries of what is chosen whose WAV no longer has its row's hash."""
        missing = {item.key for item in self._find_missing(index)}
        done = [index[item.utterance.id] for item in self.chosen if item.key not in missing]
        for begin in range(0, len(done), HASHED):
            self.stop.check()
            for entry in sorted(changed_on_disk(done[begin : begin + HASHED], self.folder), key=lambda entry: entry.id):
                path = self.folder.root / entry.file_name
                log.warning("%s is not what was written; it will be rendered again", path)
                del index[entry.id]

    def _render(self, pending: Sequence[Planned], journal: Journal, vouched: Set[str]) -> dict[str, Any]:
        """Render `pending` with progress, tracker and run record around it; returns the figures."""
        config, engine, folder = self.config, self.engine, self.folder
        watermarker = self._prepare_engine()
        record = RunRecord(folder.root, config)
        facts = dict(identity=asdict(engine.identity), plan=self.snapshot.digest)
        record.write("running", to_render=len(pending), **facts)
        tracker = open_tracker(config.wandb, folder.root, f"{config.shard}-of-{config.num_shards}", asdict(config))
        telemetry = Telemetry(len(pending), tracker)
        state = "failed"
        try:
            self.stop.signs.rendering(True)
            with Writer(RowMaker(config, engine.identity), folder, journal, vouched, self.stop.signs.row) as writer:
                RenderLoop(config, engine, watermarker, writer, telemetry, self.stop).run(pending)
            state = "stopped" if self.stop() else "ended"
        finally:
            self.stop.signs.rendering(False)
            summary = telemetry.finish()
            record.write(state, in_use=engine.in_use(), summary=summary, **facts)
        return summary

    def _use_rolled_back(self) -> None:
        """Start with the precision that an earlier process of this run rolled back to."""
        rolled_back = self.config.check.rollback_share < 1 and read_rollbacks(self.folder, self.snapshot.params)
        if precision := safest(rolled_back or []):
            log.info("an earlier run went over to precision %s, and so does this one", precision)
            self.engine.use(precision)


def _tell_lost_rows(index: Index, chosen: Sequence[Planned]) -> None:
    """What lines of the journals cost that cannot be read; a last one may be being written by another shard."""
    counts = Counter((line.journal, line.why) for line in index.lost_rows(chosen) if line.why != CUT)
    for (journal, why), count in counts.items():
        log.warning("%s: %d line(s) %s passed over; what they told of is rendered again", journal, count, why)
