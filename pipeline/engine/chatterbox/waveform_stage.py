"""Decoded tokens to speech, as many utterances at a time as fit. Knows nothing of checkpoints, checks or retries.

A waveform depends on its request's tokens, seed and voice; what is spoken beside it changes no more than, on a GPU, the
shapes that it is computed in, and so the last bits. For a GPU that is the work of a thread and a stream of their own,
which are given more before they have finished: starting a batch's kernels takes nearly as long as they do, and tokens
are decoded meanwhile.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from traceback import clear_frames

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Precision
from pipeline.data import NotFinite, Request, Speech
from pipeline.device.devices import is_lost, side_streams
from pipeline.device.memory import is_oom, release_memory
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.memory import workspace
from pipeline.engine.chatterbox.s3gen.flow import best_size, pack_frames
from pipeline.engine.chatterbox.t3.decoder import Decoded
from pipeline.engine.chatterbox.token_stage import DecodedRequest
from pipeline.engine.chatterbox.tuning import get_tuning
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.engine.chatterbox.voice import Conditionals

log = logging.getLogger(__name__)

LEAST_MEMORY = 10**8  # bytes; of less no batch is smaller


@dataclass(frozen=True)
class Speakable:
    """A request with tokens that S3Gen can speak."""

    request: Request
    decoded: Decoded
    tokens: Tensor  # (num_tokens,) int64 on the CPU, of what was decoded the speech alone


@dataclass(frozen=True)
class Waveforms:
    """A batch's `samples` (all of them, end to end), which are there when `done` has happened, and so is `finite`."""

    lengths: Sequence[int]
    samples: Tensor  # on the CPU
    finite: Tensor  # (2, rows) bool on the CPU: mels and samples
    done: torch.cuda.Event | None  # None: they are there


class WaveformStage:
    def __init__(self, models: LoadedModels, voice_of: Callable[[str], Conditionals]) -> None:
        self._models, self._voice_of = models, voice_of
        self._begun: deque[tuple[Sequence[Speakable], Future[Waveforms]]] = deque()
        self._memory = workspace(models.device)  # until it runs out
        self.too_large: list[DecodedRequest] = []
        self._stream = self._thread = None
        if models.device.type == "cuda":
            self._stream = side_streams(models.device).waveforms
            self._thread = ThreadPoolExecutor(1, "speaker", torch.cuda.set_device, (models.device,))

    def speak(self, decoded_requests: Iterable[DecodedRequest], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Speech of all of them, in any order, begun as soon as a batch is full; none begins when `stopping` is true.

        Whatever is wrong with a request alone ends up in its `Speech.error`; what finds no memory, in `too_large`, for
        another call after `halve`.
        """
        waiting: list[Speakable] = []
        self.too_large, self._begun = [], deque()  # of a call that was stopped
        for request, decoded in decoded_requests:
            if stopping():
                break
            try:
                self._voice_of(request.precision.voice_encoder)
                waiting.append(Speakable(request, decoded, speech_tokens(decoded)))
            except NotFinite as error:
                yield _not_finite(request, error)
            except Exception as error:
                yield _failed(request, error)
            while waiting and (count := self._full(waiting)):
                yield from self._speak(waiting[:count], stopping)
                waiting = waiting[count:]
        if waiting and not stopping():
            yield from self._speak(waiting, stopping)
        yield from self._spoken(0, stopping)

    def halve(self) -> None:
        """Smaller batches from now on; frees what larger ones ran in. Raises where nothing is left to make smaller."""
        if self._memory < LEAST_MEMORY:
            raise torch.OutOfMemoryError("the waveform of one utterance is too large")
        self._memory //= 2
        self.forget()
        release_memory(self._models.device, cycles=True)

    def close(self) -> None:
        """What has begun ends, and nothing else begins."""
        for _, future in self._begun:
            future.cancel()
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        if self._stream:
            self._stream.synchronize()

    def limit(self, memory: int) -> None:
        """A batch takes no more than so many bytes."""
        self._memory = min(self._memory, max(memory, LEAST_MEMORY))

    def forget(self) -> None:
        """Free what batches ran in."""
        for flow in self._models.flows.values():
            flow.forget()

    def _full(self, rows: Sequence[Speakable]) -> int:
        """How many of the first rows fill a batch; 0 while there is room for more beside them."""
        precision = rows[0].request.precision
        size = best_size(self._models.device, precision.flow, self._memory)
        voice = self._voice_of(precision.voice_encoder)
        taken = 0
        for count, row in enumerate(rows):
            taken += pack_frames(len(row.decoded.tokens), voice)
            if taken >= size:
                return max(count, 1)
        return 0

    def _speak(self, rows: Sequence[Speakable], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Begin with these; yields what has been spoken of them and of earlier ones."""
        by_precision: dict[Precision, list[Speakable]] = {}
        for row in rows:
            by_precision.setdefault(row.request.precision, []).append(row)
        for alike in by_precision.values():
            self._begin(alike)
        yield from self._spoken(get_tuning(self._models.device).batches_ahead, stopping)

    def _begin(self, rows: Sequence[Speakable]) -> None:
        """Requests of one precision."""
        if self._thread:
            future = self._thread.submit(self._tried, rows)
        else:
            future = Future()
            try:
                future.set_result(self._tried(rows))
            except Exception as error:
                future.set_exception(error)
        self._begun.append((rows, future))

    def _spoken(self, ahead: int, stopping: Callable[[], bool]) -> Iterator[Speech]:
        """What has been spoken, with no more than `ahead` batches left on their way."""
        while self._begun and (len(self._begun) > ahead or _is_there(self._begun[0][1])):
            if stopping():  # what has not begun shall not
                self._begun = deque(one for one in self._begun if not one[1].cancel())
                if not self._begun:
                    return
            rows, future = self._begun.popleft()
            error = future.exception()
            if error:
                yield from self._not_spoken(rows, error)
                continue
            made = future.result()
            if made.done:
                made.done.synchronize()
            mels, waves = made.finite.tolist()
            for row, samples, mel, wave in zip(rows, made.samples.split(made.lengths), mels, waves, strict=True):
                component = "" if mel and wave else "vocoder" if mel else "flow"
                tokens = row.tokens.numpy().astype(np.int16)
                yield Speech(row.request, samples.numpy(), tokens, row.decoded.ended, component=component)

    def _not_spoken(self, rows: Sequence[Speakable], error: BaseException) -> Iterator[Speech]:
        """If something is wrong, one by one, to find out with which."""
        if is_lost(self._models.device):
            raise error
        if is_oom(error):
            self.too_large += [(row.request, row.decoded) for row in rows]
        elif len(rows) == 1:
            yield _failed(rows[0].request, error)
        else:
            for row in rows:
                self._begin([row])

    def _tried(self, rows: Sequence[Speakable]) -> Waveforms:
        try:
            return self._waveforms(rows)
        except Exception as error:
            clear_frames(error.__traceback__)  # which would keep the batch's memory as long as the error is waited for
            raise

    @torch.inference_mode()
    def _waveforms(self, rows: Sequence[Speakable]) -> Waveforms:
        """As `S3Gen.inference`, with a number format for each half; 960 samples for a token."""
        device, precision, seeds = self._models.device, rows[0].request.precision, [row.request.seed for row in rows]
        voice, flow = self._voice_of(precision.voice_encoder), self._models.flow(precision.flow)
        vocoder, fade = self._models.vocoder(precision.vocoder), self._models.fade
        if self._stream:  # for weights and voice
            self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            mels = flow([row.tokens for row in rows], seeds, voice)
            spoken = vocoder(mels, seeds, precision.vocoder, self._memory)
            for samples in spoken:
                samples[: len(fade)] *= fade  # stock hides there what spills over from the prompt
            finite = torch.stack([torch.stack([one.isfinite().all() for one in some]) for some in (mels, spoken)])
            lengths, together = [len(samples) for samples in spoken], torch.cat(spoken)
            if not self._stream:
                return Waveforms(lengths, together, finite, None)
            return Waveforms(lengths, _fetched(together), _fetched(finite), self._stream.record_event())


def _fetched(tensor: Tensor) -> Tensor:
    """On the CPU, when the stream has come so far."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _is_there(future: Future[Waveforms]) -> bool:
    """Or has failed."""
    if not future.done() or future.exception():
        return future.done()
    done = future.result().done
    return done is None or done.query()


def speech_tokens(decoded: Decoded | Exception) -> Tensor:
    """(num_tokens,) int64, without the end token and other marks"""
    if isinstance(decoded, Exception):
        raise decoded
    if not decoded.finite:
        raise NotFinite("t3", "T3's logits are not finite")
    tokens = decoded.tokens[decoded.tokens < SPEECH_TOKENS]
    if len(tokens) == 0:
        raise ValueError("no speech tokens")
    return tokens


def _not_finite(request: Request, error: NotFinite) -> Speech:
    log.warning("%s: %s", request.utterance.id, error)
    return Speech(request, np.full(1, np.nan, np.float32), component=error.component)


def _failed(request: Request, error: BaseException) -> Speech:
    log.warning("%s: cannot be spoken", request.utterance.id, exc_info=error)
    return Speech(request, np.zeros(0, np.float32), error=f"{type(error).__name__}: {error}")
