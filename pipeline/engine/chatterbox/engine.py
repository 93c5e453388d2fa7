"""Chatterbox behind the engine protocol: what it is made of, its precision and its ladder. Imports torch only to run.

Knows nothing of books, checks or files of a run.
"""

import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import FP32, ChatterboxConfig, Precision, Sampling, VoiceConfig
from pipeline.engine import Identity, Request, Rung, Speech
from pipeline.engine.chatterbox import checkpoint
from pipeline.errors import UserError
from pipeline.voice import Clip, Conditionals, conditionals, read_clip

if TYPE_CHECKING:
    import torch

    from pipeline.engine.chatterbox.model import Models
    from pipeline.engine.chatterbox.speak import Item, Speaker
    from pipeline.engine.chatterbox.tokens import Decoders

log = logging.getLogger(__name__)

TOKENS_PER_SECOND = 25
FEWEST_TOKENS = 10


class ChatterboxEngine:
    sample_rate = 24_000

    def __init__(self, engine: ChatterboxConfig, voice: VoiceConfig, precision: Precision, device: str) -> None:
        self._options, self._wanted, self._device_name = engine, precision, device
        self._prompt_seconds = voice.prompt_seconds
        self._cache = Path(os.path.expanduser(engine.cache))
        self._clip = read_clip(Path(os.path.expanduser(voice.path))) if voice.path else None
        self._checkpoint = checkpoint.resolve(engine.checkpoint, engine.revision, self._cache)
        self._voices: dict[str, Conditionals] = {}  # by the voice encoder's precision
        self.unchecked = frozenset({"no_eos", "cut_off"} if self._checkpoint.is_stand_in else ())
        self.identity = Identity(
            model=self._checkpoint.model,
            revision=self._checkpoint.revision,
            speaker=voice.name or (self._clip.path.stem if self._clip else "builtin"),
            voice_sha256=self._clip.sha256 if self._clip else "",
            options=dict(
                max_tokens=engine.max_tokens, flow_steps=engine.flow_steps, prompt_seconds=voice.prompt_seconds
            ),
        )

    def prepare(self) -> None:
        from pipeline.engine.chatterbox import precision, stand_in

        self.precision = precision.resolve(self._wanted, self._device)
        if self._device.type == "cpu" and (size := self._options.batch_size) in ("2", "4"):
            raise UserError(
                f"engine.batch_size={size}: a CPU's bits then depend on an utterance's company; use 1, or 8 and more"
            )
        folder = self._checkpoint.folder
        if self._checkpoint.is_stand_in and not os.path.exists(folder):  # never raises
            log.info("writing random weights to %s", folder)
            try:
                stand_in.write(folder, self._checkpoint.model)
            except OSError as error:
                raise UserError(f"engine.cache={self._cache}: {error.strerror}") from error
        checkpoint.check(self._checkpoint)

    @property
    def ladder(self) -> tuple[Rung, ...]:
        retries = (Rung(new_seed=True, precision=FP32), Rung(new_seed=True, precision=FP32, sampling=safer))
        return retries if self.precision == FP32 else (Rung(precision=FP32), *retries)

    def max_tokens(self, predicted_s: float) -> int:
        """Random weights never end an utterance, so a stand-in's cap is its length."""
        if not self._checkpoint.is_stand_in:
            return self._options.max_tokens
        return min(max(math.ceil(TOKENS_PER_SECOND * predicted_s), FEWEST_TOKENS), self._options.max_tokens)

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        from pipeline.engine.chatterbox.device import ran_out, telling

        with telling(self._device):
            yield from self._synthesize(requests, stopping, ran_out)

    def _synthesize(
        self, requests: Iterable[Request], stopping: Callable[[], bool], ran_out: Callable[[Exception], bool]
    ) -> Iterator[Speech]:
        waiting, too_large = [], []  # decoded; of these, what does not fit beside the decoder
        for one in self._decoders.decode(requests, stopping):
            if stopping():
                return
            waiting.append(one)
            while waiting and (count := self._speaker.ready(waiting)):
                yield from self._speak(waiting[:count], too_large, ran_out)
                waiting = waiting[count:]
        if waiting and not stopping():
            yield from self._speak(waiting, too_large, ran_out)
        if too_large:
            self._decoders.halve()
        for one in too_large:
            if stopping():
                return
            yield from self._speaker.speak([one])

    def _speak(
        self, items: "list[Item]", too_large: "list[Item]", ran_out: Callable[[Exception], bool]
    ) -> Iterator[Speech]:
        spoken = set()
        try:
            for speech in self._speaker.speak(items):
                spoken.add(speech.request)
                yield speech
        except Exception as error:
            if not ran_out(error):
                raise
            too_large += [one for one in items if one[0] not in spoken]

    def in_use(self) -> dict[str, str]:
        return self.models.in_use() | self._decoders.in_use

    def gpu_memory_gib(self) -> float:
        if "torch" not in sys.modules or self._device.type != "cuda":
            return 0.0
        import torch

        peak = torch.cuda.max_memory_allocated(self._device) / 2**30
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak

    @property
    def device(self) -> str:
        return str(self._device)

    @cached_property
    def _device(self) -> "torch.device":
        from pipeline.engine.chatterbox.device import find_device

        return find_device(self._device_name)

    @cached_property
    def models(self) -> "Models":
        """What is loaded of the checkpoint. Who changes it changes what the engine runs."""
        from pipeline.engine.chatterbox.model import Models

        return Models(self._checkpoint.folder, self._device, self._options.flow_steps)

    @cached_property
    def _decoders(self) -> "Decoders":
        from pipeline.engine.chatterbox.tokens import Decoders

        return Decoders(self.models, self.voice, self._options)

    @cached_property
    def _speaker(self) -> "Speaker":
        from pipeline.engine.chatterbox.speak import Speaker

        return Speaker(self.models, self.voice)

    def conditionals_of(self, clip: Clip, precision: str) -> Conditionals:
        """From the cache, or computed and kept there."""
        return conditionals(
            clip,
            self.models.voice_modules,
            revision=self._checkpoint.revision,
            prompt_seconds=self._prompt_seconds,
            precision=precision,
            cache=self._cache,
        )

    def voice(self, precision: str) -> Conditionals:
        """The run's voice on the device."""
        if precision not in self._voices:
            found = self.conditionals_of(self._clip, precision) if self._clip else self.models.builtin_voice
            self._voices[precision] = found.to(self._device)
        return self._voices[precision]


def safer(sampling: Sampling) -> Sampling:
    """Less lively and less likely to run away."""
    return replace(
        sampling,
        temperature=0.75 * sampling.temperature,
        min_p=max(sampling.min_p, 0.1),
        top_p=min(sampling.top_p, 0.95),
        exaggeration=min(sampling.exaggeration, 0.5),
    )
