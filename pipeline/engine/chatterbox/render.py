"""Requests to speech on one device: which weights are there when, and what to do where memory runs out.

Knows nothing of voices' recordings, checks or retries.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import torch

from pipeline.config import ChatterboxConfig, Precision
from pipeline.engine import NotFinite, Request, Speech
from pipeline.engine.chatterbox.device import free_memory, freed, ran_out
from pipeline.engine.chatterbox.memory import PHASED_SHARE, RESIDENT_SHARE, s3gen_bytes, wants_phases
from pipeline.engine.chatterbox.model import S3GEN_FILE, Models
from pipeline.engine.chatterbox.precision import WEIGHTS
from pipeline.engine.chatterbox.speak import Item, Speaker
from pipeline.engine.chatterbox.tokens import TEXT_LENGTHS, Decoders, slot_bytes
from pipeline.errors import OutOfMemory
from pipeline.voice import Conditionals

log = logging.getLogger(__name__)

TURN = 512  # utterances whose tokens are decoded before S3Gen's turn: what has not been spoken is lost in a kill


class Renderer:
    """Decodes and speaks; `models` is what is loaded, and who changes it changes what is spoken."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        options: ChatterboxConfig,
        precision: Precision,  # of first attempts
        voice_of: Callable[[str], Conditionals],
    ) -> None:
        self._device, self._options, self._precision, self._voice_of = device, options, precision, voice_of
        self._ran_out = False  # with all weights on the device
        self.models = Models(folder, device, options.flow_steps)
        self.speaker = Speaker(self.models, voice_of)

    def render(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Each request's speech, as `Engine.synthesize` has it. What memory does not hold side by side takes turns."""
        pending = dict.fromkeys(requests)
        try:
            for speech in self._render(list(pending), stopping):
                del pending[speech.request]
                yield speech
            return
        except Exception as error:
            if not self._may_take_turns or not (ran_out(error) or isinstance(error, OutOfMemory)):
                raise
            log.warning("out of memory with all weights on %s: from here on T3 and S3Gen take turns", self._device)
        self._ran_out = True
        self._decide_anew()  # only now: an exception that is being handled keeps its frames' memory
        self.speaker.close()
        freed(self._device, cycles=True)
        self.speaker = Speaker(self.models, self._voice_of)  # with batches of the first size
        yield from self._render(list(pending), stopping)

    def use(self, precision: Precision) -> None:
        """For first attempts from here on; what only others need is freed."""
        self._precision = precision
        self._decide_anew()
        self.speaker.forget()
        self.models.keep_only(precision)
        freed(self._device)

    def in_use(self) -> dict[str, str]:
        """What is loaded really is, and what has been decided."""
        found = self.models.in_use()
        if "decoders" in vars(self):
            found |= dict(memory="phased" if self.phased else "resident") | self.decoders.in_use
        return found

    @cached_property
    def phased(self) -> bool:
        """Whether T3 and S3Gen take turns on the device."""
        mode, device = self._options.memory, self._device
        if self._ran_out:
            return True
        if device.type != "cuda":
            if mode == "phased":
                log.info("engine.memory=phased changes nothing on %s", device)
            return False
        if mode != "auto":
            return mode == "phased"
        weights = self.models.t3(WEIGHTS[self._precision.t3])
        slot = slot_bytes(weights, TEXT_LENGTHS[0], self._options.max_tokens, guided=True)
        return wants_phases(free_memory(device), self._s3gen_bytes, slot, self._options.slots)

    @cached_property
    def decoders(self) -> Decoders:
        """Requests to tokens."""
        share = PHASED_SHARE if self.phased else RESIDENT_SHARE
        return Decoders(self.models, self._voice_of, self._options, usual=self._precision.t3, share=share)

    def _render(self, requests: Sequence[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        self._prepare_voices({request.precision.voice_encoder for request in requests})
        if not self.phased:
            yield from self._side_by_side(requests, stopping)
            return
        for begin in range(0, len(requests), TURN):
            if not stopping():
                yield from self._in_phases(requests[begin : begin + TURN], stopping)

    def _side_by_side(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        self.models.load_waveforms(self._precision)  # the decoder takes its share of the memory that is then free
        items: Iterable[Item] = self.decoders.decode(requests, stopping)
        yield from self.speaker.speak(items, stopping)
        while (items := self.speaker.too_large) and not stopping():
            self.speaker.halve()
            self.decoders.halve()
            yield from self.speaker.speak(items, stopping)

    def _in_phases(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """All tokens, then all waveforms, which take no more memory than the tokens did."""
        self.models.put_waveforms_away()
        items: Iterable[Item] = list(self.decoders.decode(requests, stopping))
        if stopping():
            return
        if room := self.decoders.bytes():
            self.speaker.limit(room - self._s3gen_bytes)
        self.decoders.forget()
        self.models.put_t3_away()
        yield from self.speaker.speak(items, stopping)
        while (items := self.speaker.too_large) and not stopping():
            self.speaker.halve()
            yield from self.speaker.speak(items, stopping)

    @property
    def _may_take_turns(self) -> bool:
        return self._options.memory == "auto" and self._device.type == "cuda" and not vars(self).get("phased")

    def _decide_anew(self) -> None:
        """How memory is shared out, by what is then there; frees what decoders have of it."""
        if "decoders" in vars(self):
            self.decoders.forget()
            del self.decoders
        vars(self).pop("phased", None)

    def _prepare_voices(self, number_formats: Iterable[str]) -> None:
        """While there is room for the modules that voices are made by."""
        for number_format in number_formats:
            with suppress(NotFinite):  # whoever speaks with it is told
                self._voice_of(number_format)

    @property
    def _s3gen_bytes(self) -> int:
        return s3gen_bytes(self.models.folder / S3GEN_FILE, self._precision)
