"""The loop that ties it together: windows of requests through the engine, the checks, the ladder, to durable files.

Knows the engine only by its protocol, and nothing of books, Hydra or W&B.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.checks import judge, measure
from pipeline.config import GenerateConfig
from pipeline.engine import Engine, Request, Rung, Speech
from pipeline.plan import Planned, buckets, padding_waste, parameters, retry_seed, windows
from pipeline.store import RunFolder
from pipeline.store.journal import Journal
from pipeline.store.wav import to_float, to_pcm16, write_wav
from pipeline.telemetry.progress import Telemetry
from pipeline.watermark import Watermarker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """One try at an utterance, as the manifest records it. `reason` is empty for the try that was kept."""

    seed: int
    precision: str
    reason: str


@dataclass(frozen=True)
class Task:
    """An utterance with the attempts that have failed so far."""

    planned: Planned
    attempts: tuple[Attempt, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Synthesizer:
    """What every utterance of a run has in common."""

    config: GenerateConfig
    engine: Engine
    watermarker: Watermarker
    folder: RunFolder
    journal: Journal
    telemetry: Telemetry
    stopping: Callable[[], bool]  # asked as often as work allows

    def run(self, planned: Sequence[Planned]) -> None:
        """Render `planned`; each utterance ends as one row, ok or failed, unless `stopping` turns true first."""
        for part in windows(planned, self.config.plan.window):
            if self.stopping():
                return
            made = buckets(part, self.config.plan)
            self.telemetry.window_starts(padding_waste(made))
            pending = [Task(item) for bucket in made for item in bucket]
            for rung in (Rung(), *self.engine.ladder):
                pending = self._attempt(pending, rung)
                if not pending or self.stopping():
                    break
            if not self.stopping():
                for task in pending:
                    self._journal(self._row(task, status="failed", error=task.error))
            self.telemetry.window_ends(self.engine.gpu_memory_gib())

    def _attempt(self, tasks: Iterable[Task], rung: Rung) -> list[Task]:
        """Try every task once; returns those whose speech is bad."""
        waiting = {task.planned.utterance.id: task for task in tasks}
        failed = []
        requests = [self._request(task, rung) for task in waiting.values()]
        for speech in self.engine.synthesize(requests, self.stopping):
            task = waiting.pop(speech.request.utterance.id)
            reason, detail = self._finish(task, speech)
            if reason:
                failed.append(self._failed(task, rung, reason, detail))
        if self.stopping():  # what had no answer was not tried
            return failed
        for task in waiting.values():  # nothing is lost, not even by an engine's fault
            failed.append(self._failed(task, rung, "error", "the engine gave no answer"))
        return failed

    def _failed(self, task: Task, rung: Rung, reason: str, detail: str) -> Task:
        self.telemetry.bad_attempt(reason)
        request = self._request(task, rung)
        attempt = Attempt(request.seed, str(request.precision), reason)
        return replace(task, attempts=(*task.attempts, attempt), error=f"{reason}: {detail}")

    def _request(self, task: Task, rung: Rung) -> Request:
        planned = task.planned
        return Request(
            utterance=planned.utterance,
            seed=retry_seed(planned.seed, len(task.attempts)) if rung.new_seed else planned.seed,
            sampling=rung.sampling(self.config.sampling),
            precision=rung.precision or self.engine.precision,
            max_tokens=self.engine.max_tokens(planned.predicted_s),
        )

    def _finish(self, task: Task, speech: Speech) -> tuple[str, str]:
        """Check, watermark, write and journal one piece of speech; returns what is wrong with it, if anything is."""
        rate = self.engine.sample_rate
        reason, detail = judge(speech, rate, self.config.check, self.engine.unchecked)
        if reason:
            return reason, detail
        (marked,) = self.watermarker.apply([speech.samples], rate)
        pcm = to_pcm16(marked)
        (score,) = self.watermarker.score([to_float(pcm)], rate)
        if score is not None and score < self.config.watermark.threshold:
            return "no_watermark", f"found again with a confidence of {score:.2f} only"
        path = self.folder.wav(task.planned.utterance)
        with self.folder.writing():
            if path.exists():  # another key's: from here on no row may vouch for it
                self.journal.append(dict(id=task.planned.utterance.id, key="", status="replaced"))
            sha256 = write_wav(path, pcm, rate)
        self._journal(self._row(task, "ok", speech=speech, pcm=pcm, score=score, sha256=sha256))
        return "", ""

    def _journal(self, row: dict[str, Any]) -> None:
        with self.folder.writing():
            self.journal.append(row)
        self.telemetry.utterance(row)

    def _row(
        self,
        task: Task,
        status: str,
        error: str = "",
        speech: Speech | None = None,
        pcm: np.ndarray | None = None,
        score: float | None = None,
        sha256: str | None = None,
    ) -> dict[str, Any]:
        """A row of the manifest, ready for JSON."""
        utterance, identity, rate = task.planned.utterance, self.engine.identity, self.engine.sample_rate
        attempts, found = task.attempts, None
        if speech is not None:
            attempts = (*attempts, Attempt(speech.request.seed, str(speech.request.precision), ""))
            found = measure(to_float(pcm), rate, utterance.spoken_text, self.config.check.pause_floor_db)
        params = parameters(identity, self.config)
        return dict(
            asdict(utterance),
            file_name=self.folder.wav(utterance).relative_to(self.folder.root).as_posix() if found else None,
            speaker=identity.speaker,
            voice_sha256=identity.voice_sha256,
            language="en",
            duration=found and found.duration_s,
            num_samples=None if pcm is None else len(pcm),
            sample_rate=rate,
            audio_sha256=sha256,
            seed=attempts[-1].seed,
            params=json.dumps(params, sort_keys=True),
            engine=params["engine"],
            model=identity.model,
            model_revision=identity.revision,
            precision=attempts[-1].precision,
            status=status,
            error=error,
            attempts=[asdict(attempt) for attempt in attempts],
            watermarked=score is not None,
            watermark_score=score,
            synthetic=True,
            speech_tokens=None if speech is None or speech.tokens is None else speech.tokens.tolist(),
            peak_db=found and found.peak_db,
            rms_db=found and found.rms_db,
            silence_ratio=found and found.silence_ratio,
            chars_per_second=found and found.chars_per_second,
            created_at=datetime.now(UTC).isoformat(),
            key=task.planned.key,
        )
