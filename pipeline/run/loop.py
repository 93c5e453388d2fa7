"""The loop: windows of requests through the engine, the checks, the retry steps, the watermark, to the writer.

Runs on the thread that drives the engine, and does nothing there that the engine would wait for: checks have threads
of their own, watermarks and the writer share one. Knows the engine only by its protocol, and nothing of books, Hydra
or W&B.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.checks import Verdict, judge
from pipeline.config import GenerateConfig
from pipeline.data import SAMPLE_RATE, Request, Speech
from pipeline.engine.protocol import Engine
from pipeline.plan import Planned, render_order, windows
from pipeline.run.retry import STEPS, RetryStep, Task, add_failure, make_request, must_roll_back, walk
from pipeline.run.row import Kept
from pipeline.run.writer import Writer
from pipeline.store.schema import Row
from pipeline.store.wav import to_float, to_pcm16
from pipeline.telemetry.progress import Telemetry
from pipeline.watermark import Watermarker

log = logging.getLogger(__name__)

JUDGES = 4  # threads: an engine may answer many at once
FINISHING = 2  # batches that wait for their watermarks before the engine waits, too


@dataclass(frozen=True)
class Answer:
    """An engine's answer to a task."""

    task: Task
    speech: Speech
    verdict: Future[Verdict]


@dataclass(frozen=True)
class RenderLoop:
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
                bad = self._render_window(part)
                if part is parts[-1]:  # else the engine goes on at once, and the next window counts what is written now
                    self._count(self.writer.flush())
                elif must_roll_back(bad, len(part), self.config.check.rollback_share) and not self.stopping():
                    self._roll_back(bad, len(part))
                self.telemetry.end_window(self.engine.gpu_memory_gib(), self.engine.padding())
        finally:  # what was being written when something went wrong counts as well
            self._count(self.writer.flush())

    def _render_window(self, part: Sequence[Planned]) -> int:
        """Returns how many first attempts were bad."""
        self.telemetry.start_window()
        tasks = [Task(item) for item in render_order(part)]
        steps = STEPS if self.engine.can_retry else ()
        bad, pending = walk(tasks, self._attempt, self._request, self.stopping, steps)
        if not self.stopping():
            for task in pending:
                self._count(self.writer.fail(task))
        return bad

    def _roll_back(self, bad: int, window: int) -> None:
        """Use the next safer precision from here on, if there is one; a resumed run begins with it."""
        safer, share = self.engine.safer, self.config.check.rollback_share
        if safer is None:
            return
        log.warning(
            "%d of %d utterances were tried again, more than check.rollback_share=%g: from here on %s in place of %s",
            *(bad, window, share, safer, self.engine.precision),
        )
        self.writer.roll_back(safer)
        self.engine.use(safer)

    def _attempt(self, tasks: Sequence[Task], step: RetryStep) -> list[Task]:
        """Try every task once; returns those whose speech is bad."""
        waiting = {task.planned.utterance.id: task for task in tasks}
        requests = [self._request(task, step) for task in tasks]
        failed: list[Task] = []
        batch: list[Answer] = []
        gathered_s = 0.0
        finishing: deque[Future[list[Task]]] = deque()
        with ThreadPoolExecutor(JUDGES, "judge") as judges, ThreadPoolExecutor(1, "finisher") as finisher:
            for speech in self.engine.synthesize(requests, self.stopping):
                verdict = judges.submit(judge, speech, SAMPLE_RATE, self.config.check, self.engine.unchecked)
                batch.append(Answer(waiting.pop(speech.request.utterance.id), speech, verdict))
                gathered_s += len(speech.samples) / SAMPLE_RATE
                if gathered_s >= self.watermarker.batch_s:
                    finishing.append(finisher.submit(self._finish, batch))
                    batch, gathered_s = [], 0.0
                while len(finishing) > FINISHING or finishing and finishing[0].done():  # what failed is raised here
                    failed += finishing.popleft().result()
            finishing.append(finisher.submit(self._finish, batch))
            failed += [task for batch in finishing for task in batch.result()]
        if self.stopping():  # what had no answer was not tried
            return failed
        for task in waiting.values():  # nothing is lost, not even by an engine's fault
            failed.append(self._fail(task, self._request(task, step), "error", "the engine gave no answer"))
        return failed

    def _finish(self, batch: Sequence[Answer]) -> list[Task]:
        """Watermark what is good and hand it to the writer; returns the tasks whose speech is bad."""
        failed, good = [], []
        for answer in batch:
            verdict, speech = answer.verdict.result(), answer.speech
            if verdict.is_good:
                good.append(answer)
            else:
                task = self._fail(answer.task, speech.request, verdict.reason, verdict.detail, speech.component)
                failed.append(task)
        marked = self.watermarker.apply([answer.speech.samples for answer in good], SAMPLE_RATE)
        pcms = [to_pcm16(samples) for samples in marked]
        scores = self.watermarker.score([to_float(pcm) for pcm in pcms], SAMPLE_RATE)
        for answer, pcm, score in zip(good, pcms, scores, strict=True):
            if score is not None and score < self.config.watermark.threshold:
                detail = f"found again with a confidence of {score:.2f} only"
                failed.append(self._fail(answer.task, answer.speech.request, "no_watermark", detail))
            else:
                self._count(self.writer.keep(Kept(answer.task, answer.speech, pcm, score)))
        return failed

    def _count(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.telemetry.count(row)

    def _fail(self, task: Task, request: Request, reason: str, detail: str, component: str = "") -> Task:
        self.telemetry.count_bad_attempt(reason)
        return add_failure(task, request, reason, detail, component)

    def _request(self, task: Task, step: RetryStep) -> Request:
        max_tokens = self.engine.max_tokens(task.planned.predicted_s)
        return make_request(task, step, self.config.sampling, self.engine.precision, max_tokens)
