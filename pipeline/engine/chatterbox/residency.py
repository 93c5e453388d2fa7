"""Which weights are on the device when: T3 and S3Gen both resident, or in turns if memory is short.

Turns requests into speech and recovers when memory runs out. Knows nothing of recordings, checks or retries.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch

from pipeline.config import ChatterboxConfig, Precision, Sampling
from pipeline.data import NotFinite, Request, Speech
from pipeline.device.dtypes import DTYPES
from pipeline.device.memory import catch_oom, free_memory, release_memory
from pipeline.device.padding import PaddingMeter
from pipeline.engine.chatterbox.files import S3GEN_FILE
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.memory import PHASED_SHARE, RESIDENT_SHARE, choose_phased, s3gen_bytes
from pipeline.engine.chatterbox.token_stage import TEXT_LENGTHS, TokenStage, slot_bytes
from pipeline.engine.chatterbox.voice import Conditionals
from pipeline.engine.chatterbox.waveform_stage import WaveformStage
from pipeline.errors import OutOfMemory

log = logging.getLogger(__name__)

TURN = 512  # utterances decoded before S3Gen's turn; a kill loses those without samples


class Residency:
    """Owns both stages and the loaded `models`. Changing `models` changes the speech."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        options: ChatterboxConfig,
        precision: Precision,  # of first attempts
        voice_of: Callable[[str], Conditionals],
    ) -> None:
        self._device, self._options, self._precision, self._voice_of = device, options, precision, voice_of
        self._oom_resident = False  # memory ran out with all weights on the device
        self._phased: bool | None = None  # None: not decided yet
        self._token_stage: TokenStage | None = None  # None: not built yet
        self.meter = PaddingMeter()
        self.models = LoadedModels(folder, device, options.flow_steps, self.meter)
        self.waveform_stage = WaveformStage(self.models, voice_of)

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Yield each request's speech, as `Engine.synthesize` does.

        If memory runs out, T3 and S3Gen take turns from then on. Raises if they may not or already do.
        """
        pending = dict.fromkeys(requests)
        with catch_oom(OutOfMemory) as oom:
            for speech in self._synthesize(list(pending), stopping):
                del pending[speech.request]
                yield speech
        if oom.error is None:
            return
        if not self._may_phase:
            raise oom.error
        log.warning("out of memory with all weights on %s: from here on T3 and S3Gen take turns", self._device)
        self._oom_resident = True
        self._reset_decisions()
        self.waveform_stage.close()
        release_memory(self._device, cycles=True)
        self.waveform_stage = WaveformStage(self.models, self._voice_of)  # with the initial batch size
        yield from self._synthesize(list(pending), stopping)

    def load(self, sampling: Sampling) -> None:
        """Load and build what first attempts with `sampling` need, as far as it is on the device at the same time."""
        self._prepare_voices([self._precision.voice_encoder])
        self.models.t3(DTYPES[self._precision.t3])
        if not self.phased:
            self.models.load(self._precision)
            self.token_stage.build(self._precision, sampling)
            self.waveform_stage.warm_up(self._precision)

    def use(self, precision: Precision) -> None:
        """Use `precision` for first attempts from now on, and free the weights that it does not use."""
        self._precision = precision
        self._reset_decisions()
        self.waveform_stage.forget()
        self.models.keep_only(precision)
        release_memory(self._device)

    def in_use(self) -> dict[str, str]:
        """What is loaded and how memory is divided, in words."""
        found = self.models.in_use()
        if self._token_stage is not None:
            found |= dict(memory="phased" if self.phased else "resident") | self._token_stage.in_use
        return found

    @property
    def phased(self) -> bool:
        """Whether T3 and S3Gen take turns on the device. Decided at the first use."""
        if self._phased is None:
            self._phased = self._decide_phased()
        return self._phased

    @property
    def token_stage(self) -> TokenStage:
        """Requests to tokens. Built at the first use."""
        if self._token_stage is None:
            share = PHASED_SHARE if self.phased else RESIDENT_SHARE
            self._token_stage = TokenStage(
                self.models, self._voice_of, self._options, usual=self._precision.t3, share=share
            )
        return self._token_stage

    def _decide_phased(self) -> bool:
        mode, device = self._options.memory, self._device
        if self._oom_resident:
            return True
        if device.type != "cuda":
            if mode == "phased":
                log.info("engine.memory=phased changes nothing on %s", device)
            return False
        if mode != "auto":
            return mode == "phased"
        weights = self.models.t3(DTYPES[self._precision.t3])
        slot = slot_bytes(weights, TEXT_LENGTHS[0], self._options.max_tokens, cfg=True)
        return choose_phased(free_memory(device), self._s3gen_bytes, slot, self._options.slots)

    def _synthesize(self, requests: Sequence[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        self._prepare_voices({request.precision.voice_encoder for request in requests})
        if not self.phased:
            yield from self._synthesize_resident(requests, stopping)
            return
        for begin in range(0, len(requests), TURN):
            if not stopping():
                yield from self._synthesize_phased(requests[begin : begin + TURN], stopping)

    def _synthesize_resident(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Decode and make waveforms at the same time, with all weights on the device."""
        self.models.load(self._precision)  # before the decoder, which takes a share of the free memory
        yield from self.waveform_stage.speak(self.token_stage.decode(requests, stopping), stopping)
        while (decoded := self.waveform_stage.too_large) and not stopping():
            self.waveform_stage.halve()
            self.token_stage.halve()
            yield from self.waveform_stage.speak([decoded], stopping)

    def _synthesize_phased(self, requests: Sequence[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Decode all tokens, then make all waveforms, in no more memory than the decoder had."""
        self.models.offload_waveforms()
        decoded = list(chain.from_iterable(self.token_stage.decode(requests, stopping)))
        if stopping():
            return
        if room := self.token_stage.bytes():
            self.waveform_stage.limit(room - self._s3gen_bytes)
        self.token_stage.forget()
        self.models.offload_t3()
        yield from self.waveform_stage.speak([decoded], stopping)
        while (decoded := self.waveform_stage.too_large) and not stopping():
            self.waveform_stage.halve()
            yield from self.waveform_stage.speak([decoded], stopping)

    @property
    def _may_phase(self) -> bool:
        return self._options.memory == "auto" and self._device.type == "cuda" and not self._phased

    def _reset_decisions(self) -> None:
        """Free the decoders. Their size and `phased` are decided again at the next use, by the memory free then."""
        if self._token_stage is not None:
            self._token_stage.forget()
        self._token_stage = self._phased = None

    def _prepare_voices(self, encoders: Iterable[str]) -> None:
        """Compute the voice before weights and decoders fill the device."""
        for encoder in encoders:
            with suppress(NotFinite):  # raised again for each request with that encoder
                self._voice_of(encoder)

    @property
    def _s3gen_bytes(self) -> int:
        return s3gen_bytes(self.models.folder / S3GEN_FILE, self._precision)
