"""Makes the manifest row of an utterance, ok or failed. Knows no file or thread."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.checks import measure
from pipeline.config import GenerateConfig
from pipeline.data import SAMPLE_RATE, Identity, Speech
from pipeline.plan import parameters
from pipeline.run.retry import Attempt, Task, make_attempt
from pipeline.store.schema import Row, make_row
from pipeline.store.wav import to_float


@dataclass(frozen=True)
class Kept:
    """Speech that is good, as it will be written."""

    task: Task
    speech: Speech
    pcm: np.ndarray  # (num_samples,) int16, watermarked
    score: float | None  # the watermark's; None: there is none


@dataclass(frozen=True)
class RowMaker:
    """What all rows of a run have in common."""

    config: GenerateConfig
    identity: Identity

    def make_ok(self, kept: Kept, file_name: str, sha256: str) -> Row:
        request, tokens = kept.speech.request, kept.speech.tokens
        text, floor_db = request.utterance.spoken_text, self.config.check.pause_floor_db
        found = measure(to_float(kept.pcm), SAMPLE_RATE, text, floor_db)
        return self._make(
            kept.task,
            (*kept.task.attempts, make_attempt(request)),
            status="ok",
            file_name=file_name,
            duration=found.duration_s,
            num_samples=len(kept.pcm),
            audio_sha256=sha256,
            watermarked=kept.score is not None,
            watermark_score=kept.score,
            speech_tokens=None if tokens is None else tokens.tolist(),
            peak_db=found.peak_db,
            rms_db=found.rms_db,
            silence_ratio=found.silence_ratio,
            chars_per_second=found.chars_per_second,
        )

    def make_failed(self, task: Task) -> Row:
        return self._make(task, task.attempts, status="failed", error=task.error)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """All that changes samples beside the text, as requested."""
        return parameters(self.identity, self.config)

    def _make(self, task: Task, attempts: tuple[Attempt, ...], **values: Any) -> Row:
        """Seed, precision and sampling are those of the last attempt."""
        last = attempts[-1]
        return make_row(
            **asdict(task.planned.utterance),
            speaker=self.identity.speaker,
            voice_sha256=self.identity.voice_sha256,
            sample_rate=SAMPLE_RATE,
            seed=last.seed,
            params=json.dumps(self.parameters | dict(sampling=json.loads(last.sampling)), sort_keys=True),
            engine=self.config.engine.name,
            model=self.identity.model,
            model_revision=self.identity.revision,
            precision=last.precision,
            attempts=[asdict(attempt) for attempt in attempts],
            created_at=datetime.now(UTC).isoformat(),
            key=task.planned.key,
            **values,
        )
