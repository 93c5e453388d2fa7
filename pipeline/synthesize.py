"""The loop that ties it together: windows of requests through the engine, the checks, the ladder, the watermark.

Runs on the thread that drives the engine; what is not the device's work is done on others: checks here, files by the
writer. Knows the engine only by its protocol, and nothing of books, files, Hydra or W&B.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipeline.checks import judge
from pipeline.config import GenerateConfig
from pipeline.engine import Engine, Request, Rung, Speech
from pipeline.plan import Planned, buckets, padding_waste, retry_seed, windows
from pipeline.row import Attempt, Kept, Row, Task
from pipeline.store.wav import to_float, to_pcm16
from pipeline.telemetry.progress import Telemetry
from pipeline.watermark import Watermarker
from pipeline.writer import Writer

log = logging.getLogger(__name__)

JUDGES = 4  # threads: an engine may answer many at once


@dataclass(frozen=True)
class Answer:
    """What an engine made of a task."""

    task: Task
    speech: Speech
    verdict: Future[tuple[str, str]]  # what is wrong with it, and what was found


@dataclass(frozen=True)
class Synthesizer:
    """What every utterance of a run has in common."""

    config: GenerateConfig
    engine: Engine
    watermarker: Watermarker
    writer: Writer
    telemetry: Telemetry
    stopping: Callable[[], bool]  # asked as often as work allows

    def run(self, planned: Sequence[Planned]) -> None:
        """Render `planned`; each utterance ends as one row, ok or failed, unless `stopping` turns true first."""
        parts = windows(planned, self.config.plan.window)
        try:
            for part in parts:
                if self.stopping():
                    break
                tried_again = self._window(part)
                if part is parts[-1]:  # else the engine goes on at once, and the next counts what is being written
                    self._count(self.writer.flush())
                elif tried_again > self.config.check.rollback_share * len(part) and not self.stopping():
                    self._roll_back(tried_again, len(part))
                self.telemetry.window_ends(self.engine.gpu_memory_gib())
        finally:  # what was being written when something went wrong counts as well
            self._count(self.writer.flush())

    def _window(self, part: Sequence[Planned]) -> int:
        """How many were tried again."""
        made = buckets(part, self.config.plan)
        self.telemetry.window_starts(padding_waste(made))
        pending = [Task(item) for bucket in made for item in bucket]
        pending = self._attempt(pending, Rung())
        tried_again = len(pending)
        for rung in self.engine.ladder:
            if not pending or self.stopping():
                break
            due = {task.planned.key: task for task in pending if self._is_new(task, rung)}
            rest = [task for task in pending if task.planned.key not in due]
            pending = rest + (self._attempt(due.values(), rung) if due else [])
        if not self.stopping():
            for task in pending:
                self._count(self.writer.fail(task))
        return tried_again

    def _roll_back(self, tried_again: int, of: int) -> None:
        """From here on with the next safer precision, if there is one; a resumed run begins with it."""
        safer, share = self.engine.safer, self.config.check.rollback_share
        if safer is None:
            return
        log.warning(
            "%d of %d utterances were tried again, more than check.rollback_share=%g: from here on %s in place of %s",
            *(tried_again, of, share, safer, self.engine.precision),
        )
        self.writer.roll_back(safer)
        self.engine.use(safer)

    def _is_new(self, task: Task, rung: Rung) -> bool:
        """Whether that has not been tried yet."""
        request = self._request(task, rung)
        return (request.seed, str(request.precision)) not in {(one.seed, one.precision) for one in task.attempts}

    def _attempt(self, tasks: Iterable[Task], rung: Rung) -> list[Task]:
        """Try every task once; returns those whose speech is bad."""
        waiting = {task.planned.utterance.id: task for task in tasks}
        requests = [self._request(task, rung) for task in waiting.values()]
        failed: list[Task] = []
        batch: list[Answer] = []
        gathered_s = 0.0
        with ThreadPoolExecutor(JUDGES, thread_name_prefix="judge") as pool:
            for speech in self.engine.synthesize(requests, self.stopping):
                verdict = pool.submit(judge, speech, self.engine.sample_rate, self.config.check, self.engine.unchecked)
                batch.append(Answer(waiting.pop(speech.request.utterance.id), speech, verdict))
                gathered_s += len(speech.samples) / self.engine.sample_rate
                if gathered_s >= self.watermarker.batch_s:
                    failed += self._finish(batch, rung)
                    batch, gathered_s = [], 0.0
            failed += self._finish(batch, rung)
        if self.stopping():  # what had no answer was not tried
            return failed
        for task in waiting.values():  # nothing is lost, not even by an engine's fault
            failed.append(self._failed(task, rung, "error", "the engine gave no answer"))
        return failed

    def _finish(self, batch: Sequence[Answer], rung: Rung) -> list[Task]:
        """Watermark what is good and hand it to the writer; returns the tasks whose speech is bad."""
        rate, failed, good = self.engine.sample_rate, [], []
        for answer in batch:
            reason, detail = answer.verdict.result()
            if reason:
                task = self._failed(answer.task, rung, reason, detail)
                failed.append(replace(task, component=answer.speech.component))
            else:
                good.append(answer)
        marked = self.watermarker.apply([answer.speech.samples for answer in good], rate)
        pcms = [to_pcm16(samples) for samples in marked]
        scores = self.watermarker.score([to_float(pcm) for pcm in pcms], rate)
        for answer, pcm, score in zip(good, pcms, scores, strict=True):
            if score is not None and score < self.config.watermark.threshold:
                detail = f"found again with a confidence of {score:.2f} only"
                failed.append(self._failed(answer.task, rung, "no_watermark", detail))
            else:
                self._count(self.writer.keep(Kept(answer.task, answer.speech, pcm, score)))
        return failed

    def _count(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.telemetry.utterance(row)

    def _failed(self, task: Task, rung: Rung, reason: str, detail: str) -> Task:
        self.telemetry.bad_attempt(reason)
        request = self._request(task, rung)
        attempt = Attempt(request.seed, str(request.precision), reason)
        return replace(task, attempts=(*task.attempts, attempt), error=f"{reason}: {detail}", component="")

    def _request(self, task: Task, rung: Rung) -> Request:
        planned, precision = task.planned, rung.precision or self.engine.precision
        if rung.component and task.component:
            precision = replace(precision, **{task.component: "fp32"})
        return Request(
            utterance=planned.utterance,
            seed=retry_seed(planned.seed, len(task.attempts)) if rung.new_seed else planned.seed,
            sampling=rung.sampling(self.config.sampling),
            precision=precision,
            max_tokens=self.engine.max_tokens(planned.predicted_s),
        )
