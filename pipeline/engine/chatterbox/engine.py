"""Chatterbox behind the engine protocol: its identity, device, precision and voice. Imports torch only to run.

Knows nothing of books, checks or files of a run.
"""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clip import Clip, read_clip
from pipeline.config import ChatterboxConfig, Precision, Sampling, VoiceConfig
from pipeline.data import TOKENS_PER_SECOND, Identity, Request, Speech
from pipeline.device.environment import set_allocator, set_kernel_folder
from pipeline.engine.chatterbox import checkpoint
from pipeline.engine.chatterbox.voice import Conditionals, compute_or_read
from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch

    from pipeline.engine.chatterbox.residency import Residency
    from pipeline.engine.chatterbox.voices import RunVoice

log = logging.getLogger(__name__)

MIN_STAND_IN_TOKENS = 10  # the least cap of a stand-in's utterance


class ChatterboxEngine:
    """The engine protocol for one checkpoint, voice and device. Loads weights at the first use."""

    can_retry = True

    def __init__(self, engine: ChatterboxConfig, voice: VoiceConfig, precision: Precision, device: str) -> None:
        self._options, self._wanted, self._device_name = engine, precision, device
        self._prompt_seconds = voice.prompt_seconds
        self._cache = Path(os.path.expanduser(engine.cache))
        self._clip = read_clip(Path(os.path.expanduser(voice.path))) if voice.path else None
        self._checkpoint = checkpoint.resolve(engine.checkpoint, engine.revision, self._cache)
        self._prepared = self._started = False
        self._loading: threading.Thread | None = None  # None: not begun
        self._begun = (0.0, 0.0)  # when loading began: the clock's time, and seconds of compiling until then
        self._logged: dict[str, str] = {}  # `in_use()` as last logged
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
        set_allocator()  # torch reads it when it is imported
        from pipeline.device.devices import set_threads
        from pipeline.device.memory import release_memory
        from pipeline.engine.chatterbox import policy

        self._prepare_kernels()
        if self._device.type == "cpu":
            set_threads()
        self.precision = policy.resolve(self._wanted, self._device)
        if self._device.type == "cpu" and (size := self._options.batch_size) in ("2", "4"):
            raise UserError(
                f"engine.batch_size={size}: a CPU's bits then depend on the other rows of a batch; use 1, or 8 and more"
            )
        self._write_stand_in()
        checkpoint.check(self._checkpoint)
        release_memory(self._device, cycles=True)  # that of an earlier engine
        self._prepared = True

    def _prepare_kernels(self) -> None:
        from pipeline.device import graphs

        graphs.configure(self._options.compile)
        if not graphs.compiles(self._device):
            return
        given = self._options.compile_cache
        folder = Path(os.path.expanduser(given)) if given else self._cache / "kernels"
        try:
            set_kernel_folder(folder)
        except OSError as error:
            raise UserError(f"engine.compile_cache={folder}: {error.strerror}; choose another folder") from error

    def _write_stand_in(self) -> None:
        """Write the stand-in's random weights, if a stand-in is configured and not written yet."""
        from pipeline.engine.chatterbox import stand_in

        folder = self._checkpoint.folder
        if self._checkpoint.is_stand_in and not os.path.exists(folder):  # unlike Path's, never raises
            log.info("writing random weights to %s", folder)
            try:
                stand_in.write(folder, self._checkpoint.model)
            except OSError as error:
                raise UserError(f"engine.cache={self._cache}: {error.strerror}") from error

    def begin_loading(self, sampling: Sampling) -> None:
        """On a GPU everything for the first batches is loaded and captured. A CPU loads at the first use."""
        if self._loading:
            return
        from pipeline.device import graphs

        compiles = graphs.compiles(self._device)
        log.info("loading weights%s", ", compiling what no earlier run has compiled" if compiles else "")
        self._begun = time.monotonic(), graphs.spent_s()
        self._loading = threading.Thread(target=self._load, args=(sampling,), name="loading", daemon=True)
        self._loading.start()

    def _load(self, sampling: Sampling) -> None:
        if self._device.type != "cuda":
            return
        import torch

        torch.cuda.set_device(self._device)
        with suppress(Exception):  # comes again where it is used, to those who know what to do
            self.residency.load(sampling)

    def files(self) -> list[Path]:
        """The checkpoint's files, and the kernels that were compiled."""
        folders = (self._checkpoint.folder, Path(os.environ.get("TRITON_CACHE_DIR", self._cache / "kernels")))
        return [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()]

    @property
    def safer(self) -> Precision | None:
        from pipeline.engine.chatterbox import policy

        return policy.safer(self.precision, self._device)

    def use(self, precision: Precision) -> None:
        from pipeline.engine.chatterbox.policy import resolve

        self.precision = resolve(precision, self._device)
        self.residency.use(self.precision)

    def max_tokens(self, predicted_s: float) -> int:
        """A stand-in never draws the end token, so its cap is the predicted length."""
        if not self._checkpoint.is_stand_in:
            return self._options.max_tokens
        return min(max(math.ceil(TOKENS_PER_SECOND * predicted_s), MIN_STAND_IN_TOKENS), self._options.max_tokens)

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        from pipeline.device.devices import device_errors

        requests = list(requests)
        if requests:
            self.begin_loading(requests[0].sampling)
            self._loading.join()
        with device_errors(self._device):
            for speech in self._log_start(self.residency.synthesize(requests, stopping)):
                if (found := self.in_use()) != self._logged:  # something was loaded or rebuilt
                    log.info("in use: %s", "; ".join(f"{what} {how}" for what, how in found.items()))
                    self._logged = found
                yield speech

    def _log_start(self, speeches: Iterator[Speech]) -> Iterator[Speech]:
        """Pass `speeches` on. Log how long the engine's first one took."""
        if self._started:
            yield from speeches
            return
        from pipeline.device import graphs

        self._started, (begun, spent_s) = True, self._begun
        for number, speech in enumerate(speeches):
            if number == 0:
                log.info(
                    "first speech after %.1f s, including %.1f s of compiling and capturing",
                    time.monotonic() - begun,
                    graphs.spent_s() - spent_s,
                )
            yield speech

    def in_use(self) -> dict[str, str]:
        encoder = {"voice encoder": self.voice.in_use} if self._clip and self.voice.in_use else {}
        return self.residency.in_use() | encoder

    def padding(self) -> dict[str, float]:
        return self.residency.meter.read()

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

        from pipeline.device.devices import find_device

        device = find_device(self._device_name)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # for kernels launched without a device
        return device

    @cached_property
    def residency(self) -> "Residency":
        """Both stages and the loaded models. Changing them changes what the engine runs."""
        from pipeline.engine.chatterbox.residency import Residency

        return Residency(self._checkpoint.folder, self._device, self._options, self.precision, self.voice)

    @cached_property
    def voice(self) -> "RunVoice":
        """The run's voice on the device."""
        from pipeline.engine.chatterbox.voices import RunVoice

        return RunVoice(self._compute_voice, self._device)

    def _compute_voice(self, encoder: str) -> Conditionals:
        return self.conditionals_of(self._clip, encoder) if self._clip else self.residency.models.builtin_voice

    def conditionals_of(self, clip: Clip, encoder: str) -> Conditionals:
        """A clip's conditionals from the cache, or computed with the voice encoder in dtype `encoder` and cached.

        FloatingPointError if they are not finite in half precision; `UserError` if the clip is unusable.
        """
        return compute_or_read(
            clip,
            self.residency.models.voice_modules,
            revision=self._checkpoint.revision,
            prompt_seconds=self._prompt_seconds,
            precision=encoder,
            cache=self._cache,
        )
