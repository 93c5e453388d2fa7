"""A row of the manifest: what is said of an utterance, spoken or failed. Knows no file, thread or engine."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.checks import measure
from pipeline.config import GenerateConfig
from pipeline.engine import Identity, Speech
from pipeline.plan import Planned, parameters
from pipeline.store.wav import to_float

Row = dict[str, Any]  # ready for JSON


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
    component: str = ""  # whose numbers were not finite in the last of them


@dataclass(frozen=True)
class Kept:
    """Speech that is good, as it will be written."""

    task: Task
    speech: Speech
    pcm: np.ndarray  # (num_samples,) int16, watermarked
    score: float | None  # the watermark's; None: there is none


@dataclass(frozen=True)
class Rows:
    """Makes rows, of what all rows of a run have in common and what each has of its own."""

    config: GenerateConfig
    identity: Identity
    sample_rate: int  # Hz

    def ok(self, kept: Kept, file_name: str, sha256: str) -> Row:
        request, tokens = kept.speech.request, kept.speech.tokens
        text, floor_db = request.utterance.spoken_text, self.config.check.pause_floor_db
        found = measure(to_float(kept.pcm), self.sample_rate, text, floor_db)
        attempts = (*kept.task.attempts, Attempt(request.seed, str(request.precision), ""))
        return self._row(kept.task, attempts, "ok", "") | dict(
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

    def failed(self, task: Task) -> Row:
        return self._row(task, task.attempts, "failed", task.error)

    def replaced(self, task: Task) -> Row:
        """From here on no row vouches for the utterance's WAV: it is being written anew."""
        return dict(id=task.planned.utterance.id, key="", status="replaced")

    def _row(self, task: Task, attempts: tuple[Attempt, ...], status: str, error: str) -> Row:
        """With nothing said of audio yet."""
        return dict(
            asdict(task.planned.utterance),
            file_name=None,
            speaker=self.identity.speaker,
            voice_sha256=self.identity.voice_sha256,
            language="en",
            duration=None,
            num_samples=None,
            sample_rate=self.sample_rate,
            audio_sha256=None,
            seed=attempts[-1].seed,
            params=self._params,
            engine=self.config.engine.name,
            model=self.identity.model,
            model_revision=self.identity.revision,
            precision=attempts[-1].precision,
            status=status,
            error=error,
            attempts=[asdict(attempt) for attempt in attempts],
            watermarked=False,
            watermark_score=None,
            synthetic=True,
            speech_tokens=None,
            peak_db=None,
            rms_db=None,
            silence_ratio=None,
            chars_per_second=None,
            created_at=datetime.now(UTC).isoformat(),
            key=task.planned.key,
        )

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """All that changes samples beside the text."""
        return parameters(self.identity, self.config)

    @cached_property
    def _params(self) -> str:
        return json.dumps(self.parameters, sort_keys=True)
