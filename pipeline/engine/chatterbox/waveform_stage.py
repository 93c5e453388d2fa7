"""Speech tokens to samples, in batches as large as memory allows. Knows nothing of checkpoints, checks or retries.

A waveform depends on its request's tokens, seed and voice. Other rows of the batch only change its padded shape; on a
GPU that can change the last bits. On a GPU, batches run in their own thread and stream while tokens are decoded, and
several are queued: launching a batch's kernels takes nearly as long as running them.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Precision
from pipeline.data import NotFinite, Request, Speech
from pipeline.device.devices import is_lost, side_streams
from pipeline.device.memory import is_oom, release_memory
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.memory import workspace_bytes
from pipeline.engine.chatterbox.s3gen.flow import best_size, pack_frames
from pipeline.engine.chatterbox.t3.decoder import Decoded
from pipeline.engine.chatterbox.token_stage import DecodedRequest
from pipeline.engine.chatterbox.tuning import get_tuning
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.engine.chatterbox.voice import Conditionals

log = logging.getLogger(__name__)

FIRST_FRAMES = 4096  # of the first batch: a few utterances
MIN_MEMORY = 10**8  # bytes; with less, batches would not get smaller


@dataclass(frozen=True)
class WaveformRequest:
    """A request with the speech tokens for S3Gen."""

    request: Request
    decoded: Decoded
    tokens: Tensor  # (num_tokens,) int64 on the CPU: the decoded tokens without marks


@dataclass(frozen=True)
class WaveformBatch:
    """A batch's results. `samples` and `finite` are valid once `done` has happened."""

    lengths: Sequence[int]  # samples of each row
    samples: Tensor  # (sum of lengths,) float32 on the CPU, row after row
    finite: Tensor  # (2, rows) bool on the CPU: of mels and of samples
    done: torch.cuda.Event | None  # None: valid at once


class WaveformStage:
    """Computes batches of waveforms: on a GPU in a thread and ahead of the caller, else at once."""

    def __init__(self, models: LoadedModels, voice_of: Callable[[str], Conditionals]) -> None:
        self._models, self._voice_of = models, voice_of
        self._submitted: deque[tuple[Sequence[WaveformRequest], Future[WaveformBatch]]] = deque()
        self._memory = workspace_bytes(models.device)  # of a batch; halved when memory runs out
        self.too_large: list[DecodedRequest] = []
        self._stream = self._thread = None
        if models.device.type == "cuda":
            self._stream = side_streams(models.device).waveforms
            self._thread = ThreadPoolExecutor(1, "speaker", torch.cuda.set_device, (models.device,))

    def speak(self, steps: Iterable[Sequence[DecodedRequest]], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Yield the speech of each request, in any order, as soon as a step follows its batch's end.

        A batch starts when it is full, unless `stopping` is true; the first one is small, so that speech comes soon.
        A request's own error goes to its `Speech.error`. Requests for which memory ran out go to `too_large`, for
        another call after `halve`.
        """
        waiting: list[WaveformRequest] = []
        self.too_large, self._submitted = [], deque()  # a stopped call may have left some
        size = FIRST_FRAMES
        for step in steps:
            for request, decoded in step:
                if stopping():
                    break
                try:
                    self._voice_of(request.precision.voice_encoder)
                    waiting.append(WaveformRequest(request, decoded, speech_tokens(decoded)))
                except NotFinite as error:
                    yield _not_finite(request, error)
                except Exception as error:
                    yield _failed(request, error)
                while waiting and (count := self._count_full(waiting, size)):
                    yield from self._submit_and_collect(waiting[:count], stopping)
                    waiting, size = waiting[count:], None
            yield from self._collect(get_tuning(self._models.device).batches_ahead, stopping)
        if waiting and not stopping():
            yield from self._submit_and_collect(waiting, stopping)
        yield from self._collect(0, stopping)

    def warm_up(self, precision: Precision) -> None:
        """On a GPU, begin to compute a first batch of nothing: the real one finds its kernels and graph loaded."""
        if self._thread:
            prompt = self._voice_of(precision.voice_encoder).prompt_token.shape[1]
            row = torch.zeros(max(FIRST_FRAMES // 8 - prompt, 1), dtype=torch.int64)  # a quarter of the pack
            self._thread.submit(self._compute_and_clear, [row] * 4, [0] * 4, precision)

    def halve(self) -> None:
        """Halve the memory of later batches and free that of earlier ones. OutOfMemoryError below MIN_MEMORY."""
        if self._memory < MIN_MEMORY:
            raise torch.OutOfMemoryError("the waveform of one utterance is too large")
        self._memory //= 2
        self.forget()
        release_memory(self._models.device, cycles=True)

    def close(self) -> None:
        """Cancel queued batches and wait for the running ones."""
        for _, future in self._submitted:
            future.cancel()
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        if self._stream:
            self._stream.synchronize()

    def limit(self, memory: int) -> None:
        """Limit later batches to `memory` bytes."""
        self._memory = min(self._memory, max(memory, MIN_MEMORY))

    def forget(self) -> None:
        """Free the flows' buffers and graphs."""
        for flow in self._models.flows.values():
            flow.forget()

    def _count_full(self, rows: Sequence[WaveformRequest], most: int | None) -> int:
        """How many of the first rows fill a batch of at most `most` frames. 0: it has room for more than all rows."""
        precision = rows[0].request.precision
        size = best_size(self._models.device, precision.flow, self._memory)
        size = min(size, most or size)
        voice = self._voice_of(precision.voice_encoder)
        taken = 0
        for count, row in enumerate(rows):
            taken += pack_frames(len(row.decoded.tokens), voice)
            if taken >= size:
                return max(count, 1)
        return 0

    def _submit_and_collect(self, rows: Sequence[WaveformRequest], stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Submit `rows`, a batch for each precision. Yield the finished speech of these and of earlier batches."""
        by_precision: dict[Precision, list[WaveformRequest]] = {}
        for row in rows:
            by_precision.setdefault(row.request.precision, []).append(row)
        for batch in by_precision.values():
            self._submit(batch)
        yield from self._collect(get_tuning(self._models.device).batches_ahead, stopping)

    def _submit(self, rows: Sequence[WaveformRequest]) -> None:
        """Start a batch. All rows must have the same precision."""
        tokens, seeds = [row.tokens for row in rows], [row.request.seed for row in rows]
        batch = tokens, seeds, rows[0].request.precision
        if self._thread:
            future = self._thread.submit(self._compute_and_clear, *batch)
        else:
            future = Future()
            try:
                future.set_result(self._compute_and_clear(*batch))
            except Exception as error:
                future.set_exception(error)
        self._submitted.append((rows, future))

    def _collect(self, ahead: int, stopping: Callable[[], bool]) -> Iterator[Speech]:
        """Yield the speech of finished batches. Wait while more than `ahead` batches are unfinished."""
        while self._submitted and (len(self._submitted) > ahead or _is_ready(self._submitted[0][1])):
            if stopping():  # drop the batches that have not started
                self._submitted = deque(one for one in self._submitted if not one[1].cancel())
                if not self._submitted:
                    return
            rows, future = self._submitted.popleft()
            error = future.exception()
            if error:
                yield from self._handle_failure(rows, error)
                continue
            batch = future.result()
            if batch.done:
                batch.done.synchronize()
            mels, waves = batch.finite.tolist()
            for row, samples, mel, wave in zip(rows, batch.samples.split(batch.lengths), mels, waves, strict=True):
                component = "" if mel and wave else "vocoder" if mel else "flow"
                tokens = row.tokens.numpy().astype(np.int16)
                yield Speech(row.request, samples.numpy(), tokens, row.decoded.ended, component=component)

    def _handle_failure(self, rows: Sequence[WaveformRequest], error: BaseException) -> Iterator[Speech]:
        """Submit the rows of a failed batch one by one, to find the one that fails.

        After running out of memory, add them to `too_large` instead. Raises `error` if the device is lost.
        """
        if is_lost(self._models.device):
            raise error
        if is_oom(error):
            self.too_large += [(row.request, row.decoded) for row in rows]
        elif len(rows) == 1:
            yield _failed(rows[0].request, error)
        else:
            for row in rows:
                self._submit([row])

    def _compute_and_clear(self, *batch: Any) -> WaveformBatch:
        """Run `_compute`. Clear an error's frames, which would keep the batch's memory until the error is handled."""
        try:
            return self._compute(*batch)
        except Exception as error:
            clear_frames(error.__traceback__)
            raise

    @torch.inference_mode()
    def _compute(self, tokens: Sequence[Tensor], seeds: Sequence[int], precision: Precision) -> WaveformBatch:
        """As `S3Gen.inference`, with a number format each for flow and vocoder. 960 samples a token."""
        voice, flow = self._voice_of(precision.voice_encoder), self._models.flow(precision.flow)
        vocoder, fade = self._models.vocoder(precision.vocoder), self._models.fade
        if self._stream:  # the current stream may still be copying weights and voice
            self._stream.wait_stream(torch.cuda.current_stream(self._models.device))
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            mels = flow(tokens, seeds, voice)
            waves = vocoder(mels, seeds, precision.vocoder, self._memory)
            for samples in waves:
                samples[: len(fade)] *= fade  # as stock does, to hide what spills over from the prompt
            finite = torch.stack([torch.stack([row.isfinite().all() for row in kind]) for kind in (mels, waves)])
            lengths, samples = [len(wave) for wave in waves], torch.cat(waves)
            if not self._stream:
                return WaveformBatch(lengths, samples, finite, None)
            return WaveformBatch(lengths, _copy_to_host(samples), _copy_to_host(finite), self._stream.record_event())


def _copy_to_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, valid once the current stream has reached it."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _is_ready(future: Future[WaveformBatch]) -> bool:
    """Whether the batch's samples are on the host, or the batch has failed."""
    if not future.done() or future.exception():
        return future.done()
    done = future.result().done
    return done is None or done.query()


def speech_tokens(decoded: Decoded | Exception) -> Tensor:
    """The decoded tokens without marks such as the end token. (num_tokens,) int64

    Raises the request's own error; `NotFinite` for bad logits; ValueError if no speech token is left.
    """
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
