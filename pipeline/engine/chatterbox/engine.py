"""Chatterbox behind the engine protocol: what it is made of, its precision and its ladder. Imports torch only to run.

Knows nothing of books, checks or files of a run.
"""

import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import FP32, ChatterboxConfig, Precision, Sampling, VoiceConfig
from pipeline.engine import Identity, NotFinite, Request, Rung, Speech
from pipeline.engine.chatterbox import checkpoint
from pipeline.errors import UserError
from pipeline.voice import Clip, Conditionals, conditionals, read_clip

if TYPE_CHECKING:
    import torch

    from pipeline.engine.chatterbox.model import Models
    from pipeline.engine.chatterbox.render import Renderer
    from pipeline.engine.chatterbox.speak import Speaker
    from pipeline.engine.chatterbox.tokens import Decoders

log = logging.getLogger(__name__)

# What is given back can be had again in pieces of any size; else a decoder's memory stays lost to waveforms.
ALLOCATOR = "expandable_segments:True"
ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # a user's own, of either name, stand
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
        self._prepared = self._started = False
        self._told: dict[str, str] = {}  # what was logged of what is in use
        self._voices: dict[str, Conditionals | NotFinite] = {}  # by the voice encoder's precision
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
        if self._prepared:
            return
        if not os.environ.keys() & set(ALLOCATOR_VARIABLES):
            os.environ[allocator_variable()] = ALLOCATOR  # read when torch is imported
        from pipeline.engine.chatterbox import precision, stand_in
        from pipeline.engine.chatterbox.device import freed, set_threads

        self._prepare_kernels()
        if self._device.type == "cpu":
            set_threads()
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
        freed(self._device, cycles=True)  # of an engine before this one
        self._prepared = True

    def _prepare_kernels(self) -> None:
        from pipeline.engine.chatterbox import compiled

        compiled.configure(self._options.compile)
        if not compiled.compiles(self._device):
            return
        given = self._options.compile_cache
        folder = Path(os.path.expanduser(given)) if given else self._cache / "kernels"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"engine.compile_cache={folder}: {error.strerror}; choose another folder") from error
        os.environ["TRITON_CACHE_DIR"] = str(folder)  # read when a kernel is first wanted

    @property
    def ladder(self) -> tuple[Rung, ...]:
        return (
            Rung(component=True),
            Rung(precision=FP32),
            Rung(new_seed=True, precision=FP32),
            Rung(new_seed=True, precision=FP32, sampling=calmer),
        )

    @property
    def safer(self) -> Precision | None:
        from pipeline.engine.chatterbox import precision

        return precision.safer(self.precision, self._device)

    def use(self, precision: Precision) -> None:
        from pipeline.engine.chatterbox.precision import resolve

        self.precision = resolve(precision, self._device)
        self._renderer.use(self.precision)

    def max_tokens(self, predicted_s: float) -> int:
        """Random weights never end an utterance, so a stand-in's cap is its length."""
        if not self._checkpoint.is_stand_in:
            return self._options.max_tokens
        return min(max(math.ceil(TOKENS_PER_SECOND * predicted_s), FEWEST_TOKENS), self._options.max_tokens)

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        from pipeline.engine.chatterbox.device import telling

        with telling(self._device):
            for speech in self._tell_start(self._renderer.render(requests, stopping)):
                if (found := self.in_use()) != self._told:  # now loaded, or built anew
                    log.info("in use: %s", "; ".join(f"{what} {how}" for what, how in found.items()))
                    self._told = found
                yield speech

    def _tell_start(self, speeches: Iterator[Speech]) -> Iterator[Speech]:
        """Passes them on."""
        if self._started:
            yield from speeches
            return
        from pipeline.engine.chatterbox import compiled

        begun, spent_s, self._started = time.monotonic(), compiled.spent_s(), True
        compiles = compiled.compiles(self._device)
        log.info("loading weights%s", ", compiling what no earlier run has compiled" if compiles else "")
        for number, speech in enumerate(speeches):
            if number == 0:
                log.info(
                    "first speech after %.1f s, of which compiled and captured in %.1f s",
                    time.monotonic() - begun,
                    compiled.spent_s() - spent_s,
                )
            yield speech

    def in_use(self) -> dict[str, str]:
        heard = {"voice encoder": "/".join(self._voices)} if self._clip and self._voices else {}
        return self._renderer.in_use() | heard

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
        import torch

        from pipeline.engine.chatterbox.device import find_device

        device = find_device(self._device_name)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where kernels run that name none
        return device

    @cached_property
    def _renderer(self) -> "Renderer":
        from pipeline.engine.chatterbox.render import Renderer

        return Renderer(self._checkpoint.folder, self._device, self._options, self.precision, self.voice)

    @property
    def models(self) -> "Models":
        """What is loaded of the checkpoint. Who changes it changes what the engine runs."""
        return self._renderer.models

    @property
    def decoders(self) -> "Decoders":
        """Requests to tokens."""
        return self._renderer.decoders

    @property
    def speaker(self) -> "Speaker":
        """Tokens to speech."""
        return self._renderer.speaker

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
        """The run's voice on the device. `NotFinite` where half precision was too little for it."""
        if precision not in self._voices:
            try:
                found = self.conditionals_of(self._clip, precision) if self._clip else self.models.builtin_voice
                self._voices[precision] = found.to(self._device)
            except FloatingPointError as error:
                self._voices[precision] = NotFinite("voice_encoder", str(error))
        if isinstance(voice := self._voices[precision], NotFinite):
            raise voice
        return voice


def allocator_variable() -> str:
    """What torch reads them from; 2.9 gave it a new name."""
    major, minor, *_ = version("torch").split(".")
    before, since = ALLOCATOR_VARIABLES
    return since if (int(major), int(minor)) >= (2, 9) else before


def calmer(sampling: Sampling) -> Sampling:
    """Less lively and less likely to run away."""
    return replace(
        sampling,
        temperature=0.75 * sampling.temperature,
        min_p=max(sampling.min_p, 0.1),
        top_p=min(sampling.top_p, 0.95),
        exaggeration=min(sampling.exaggeration, 0.5),
    )
