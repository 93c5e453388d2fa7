"""Decoded tokens to speech, as many utterances at a time as fit. Knows nothing of checkpoints, checks or retries.

A waveform depends on its request's tokens, seed and voice, not on what is spoken beside it.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Precision
from pipeline.engine import Request, Speech
from pipeline.engine.chatterbox.device import is_lost, ran_out
from pipeline.engine.chatterbox.model import Models
from pipeline.engine.chatterbox.t3.decoder import Decoded
from pipeline.voice import Conditionals

log = logging.getLogger(__name__)

SPEECH_TOKENS = 6561  # ids from here on are marks, not speech
Item = tuple[Request, Decoded | Exception]


class Speaker:
    def __init__(self, models: Models, voice_of: Callable[[str], Conditionals]) -> None:
        self._models, self._voice_of = models, voice_of

    def ready(self, items: Sequence[Item]) -> int:
        """How many of the first items to speak now; 0 while there is room for more beside them."""
        precision = items[0][0].precision
        flow, voice = self._models.flow(precision.flow), self._voice_of(precision.voice_encoder)
        taken = 0
        for count, (_, decoded) in enumerate(items):
            taken += flow.frames(len(decoded.tokens), voice) if isinstance(decoded, Decoded) else 0
            if taken >= flow.size:
                return max(count, 1)
        return 0

    def speak(self, items: Sequence[Item]) -> Iterator[Speech]:
        """In any order. Whatever is wrong with a request alone ends up in its `Speech.error`."""
        good: dict[Precision, list[tuple[Request, Decoded, Tensor]]] = {}
        for request, decoded in items:
            try:
                good.setdefault(request.precision, []).append((request, decoded, speech_tokens(decoded)))
            except FloatingPointError as error:  # the checks call it what it is
                log.warning("%s: %s", request.utterance.id, error)
                yield Speech(request, np.full(1, np.nan, np.float32))
            except Exception as error:
                yield _failed(request, error)
        for some in good.values():
            yield from self._speak(some)

    def _speak(self, some: Sequence[tuple[Request, Decoded, Tensor]]) -> Iterator[Speech]:
        """Requests of one precision; if something is wrong, one by one, to find out with which."""
        try:
            spoken = self._waveforms([request for request, _, _ in some], [tokens for _, _, tokens in some])
        except Exception as error:
            if ran_out(error) or is_lost(self._models.device):
                raise
            if len(some) == 1:
                yield _failed(some[0][0], error)
                return
            for one in some:
                yield from self._speak([one])
            return
        for (request, decoded, tokens), samples in zip(some, spoken, strict=True):
            yield Speech(request, samples, tokens.numpy().astype(np.int16), decoded.ended)

    @torch.inference_mode()
    def _waveforms(self, requests: Sequence[Request], tokens: Sequence[Tensor]) -> list[np.ndarray]:
        """As `S3Gen.inference`, with a number format for each half. (num_samples,) float32 each, 960 for a token"""
        precision, seeds = requests[0].precision, [request.seed for request in requests]
        voice, fade = self._voice_of(precision.voice_encoder), self._models.fade
        mels = self._models.flow(precision.flow)([one.to(self._models.device) for one in tokens], seeds, voice)
        spoken = self._models.vocoder(mels, seeds, precision.vocoder)
        for samples in spoken:
            samples[: len(fade)] *= fade  # stock hides there what spills over from the prompt
        together = torch.cat(spoken).cpu()  # one transfer
        return [samples.numpy() for samples in together.split([len(samples) for samples in spoken])]


def speech_tokens(decoded: Decoded | Exception) -> Tensor:
    """(num_tokens,) int64, without the end token and other marks"""
    if isinstance(decoded, Exception):
        raise decoded
    if not decoded.finite:
        raise FloatingPointError("T3's logits are not finite")
    tokens = decoded.tokens[decoded.tokens < SPEECH_TOKENS]
    if len(tokens) == 0:
        raise ValueError("no speech tokens")
    return tokens


def _failed(request: Request, error: Exception) -> Speech:
    log.warning("%s: cannot be spoken", request.utterance.id, exc_info=error)
    return Speech(request, np.zeros(0, np.float32), error=f"{type(error).__name__}: {error}")
