"""Requests to speech tokens in batches: which requests share a decoder, and how many slots it has.

Knows nothing of waveforms. Uses only the decoder's inputs and outputs.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.config import ChatterboxConfig, Precision, Sampling
from pipeline.data import NotFinite, Request
from pipeline.device.dtypes import DTYPES, float32_math
from pipeline.device.memory import catch_oom, free_memory, release_memory, total_memory
from pipeline.device.offload import num_bytes
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.memory import MAX_SLOTS, RESIDENT_SHARE, fit_slots
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.cache import bytes_per_row
from pipeline.engine.chatterbox.t3.decoder import Decoded, Decoder
from pipeline.engine.chatterbox.t3.slots import Prompt
from pipeline.engine.chatterbox.t3.transformer import compute_prefix
from pipeline.engine.chatterbox.t3.weights import T3Weights
from pipeline.engine.chatterbox.vocabulary import START_TEXT, STOP_TEXT
from pipeline.engine.chatterbox.voice import Conditionals
from pipeline.errors import OutOfMemory

log = logging.getLogger(__name__)

TEXT_LENGTHS = (256, 512, 1024, 2050)  # sentences of a book fit into 256 tokens; the model has 2050 positions
CPU_SLOTS = 8
RETRY_DIVISOR = 16  # retry decoders, in another dtype, get 1/16 of the usual decoder's share of memory

DecodedRequest = tuple[Request, Decoded | Exception]  # Exception: the request's error


@dataclass(frozen=True)
class DecoderKey:
    """What requests must have in common to share a decoder. Read from each request alone, never from the batch."""

    number_format: str
    voice_encoder: str  # the voice encoder's number format
    exaggeration: float
    cfg: bool
    with_top_p: bool
    max_text: int


@dataclass(frozen=True)
class KeptDecoder:
    """A decoder with the key that it was built for."""

    key: DecoderKey
    decoder: Decoder


class TokenStage:
    """Builds a decoder for each key. Keeps the last one in the usual number format and the last one for retries."""

    def __init__(
        self,
        models: LoadedModels,
        voice_of: Callable[[str], Conditionals],
        options: ChatterboxConfig,
        usual: str,  # T3's number format in first attempts
        share: float = RESIDENT_SHARE,  # of a GPU's free memory, for the KV cache
    ) -> None:
        self._models, self._voice_of, self._max_tokens = models, voice_of, options.max_tokens
        self._usual_format, self._share = usual, share
        self._requested_slots = options.slots  # None: as many as fit
        self._max_slots = self._requested_slots or MAX_SLOTS  # halved when memory runs out
        self._sizes: dict[int, int] = {}  # slots by bytes of each: a rebuilt decoder must have the same size
        self._usual: KeptDecoder | None = None
        self._retry: KeptDecoder | None = None  # in another number format
        self.in_use: dict[str, str] = {}  # descriptions of decoders, by number format

    def decode(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Sequence[DecodedRequest]]:
        """Yield the requests that have ended: after each step, and after most steps there are none. Key after key.

        If memory runs out, unfinished requests start again with half as many slots; `OutOfMemory` if one slot is too
        many.
        """
        by_key: dict[DecoderKey, dict[Prompt, Request]] = {}
        for request in requests:
            try:
                prompt = self.prompt_of(request)
                key = decoder_key(request.precision, request.sampling, len(prompt.text))
                by_key.setdefault(key, {})[prompt] = request
            except Exception as error:  # concerns this request alone
                yield [(request, error)]
        for key, prompts in by_key.items():
            while prompts and not stopping():
                try:
                    with catch_oom() as oom:
                        for ended in decode(self.decoder_of(key), list(prompts), stopping, self._models.meter):
                            yield [(prompts.pop(decoded.prompt), decoded) for decoded in ended]
                except NotFinite as error:  # the voice's, so it concerns all requests of the key
                    yield [(request, error) for request in prompts.values()]
                    break
                if oom.error:
                    self._halve_after(oom.error)

    def _halve_after(self, error: Exception) -> None:
        if self._max_slots == 1:
            raise OutOfMemory(
                f"{self._models.device} has too little memory even for engine.batch_size=1: "
                f"lower engine.max_tokens={self._max_tokens}, free memory, or use device=cpu"
            ) from error
        self.halve()

    def build(self, precision: Precision, sampling: Sampling) -> None:
        """Build the decoder that most requests with this precision and sampling need."""
        self.decoder_of(decoder_key(precision, sampling, TEXT_LENGTHS[0]))

    @property
    def usual_decoder(self) -> Decoder:
        """The last decoder built in the usual number format."""
        return self._usual.decoder

    def bytes(self) -> int:
        """Bytes that the larger kept decoder and its weights take. 0: none is kept."""
        kept = [one.decoder for one in (self._usual, self._retry) if one]
        return max((num_bytes(decoder.weights) + num_bytes(decoder.cache) for decoder in kept), default=0)

    def halve(self) -> None:
        """Free both decoders' memory. Later decoders have half as many slots."""
        self._max_slots = max((self._usual.decoder.size if self._usual else self._max_slots) // 2, 1)
        self._sizes.clear()
        self.forget(cycles=True)
        log.warning("out of memory on %s: from here on %d utterances at a time", self._models.device, self._max_slots)

    def forget(self, cycles: bool = False) -> None:
        """Free the memory of both decoders."""
        self._close_retry()
        if self._usual:
            self._usual.decoder.close()
            self._usual = None
        release_memory(self._models.device, cycles)

    def prompt_of(self, request: Request) -> Prompt:
        """The request's text tokens between start and stop, with its seed, sampling and cap."""
        words = self._models.tokenizer.encode(request.utterance.spoken_text)
        return Prompt((START_TEXT, *words, STOP_TEXT), request.seed, request.sampling, request.max_tokens)

    def decoder_of(self, key: DecoderKey) -> Decoder:
        """The kept decoder if it has that key, else a new one, which replaces it."""
        is_retry = key.number_format != self._usual_format
        kept = self._retry if is_retry else self._usual
        if kept and kept.key == key:
            return kept.decoder
        had, kept = kept is not None, None  # a reference would keep the old decoder's memory
        if had and is_retry:
            self._close_retry()
            release_memory(self._models.device)
        elif had:
            self.forget()
        decoder = self._build(key, is_retry)
        if is_retry:
            self._retry = KeptDecoder(key, decoder)
        else:
            self._usual = KeptDecoder(key, decoder)
        self.in_use[f"t3 {key.number_format}"] = decoder.in_use()
        return decoder

    def _close_retry(self) -> None:
        if self._retry:
            self._retry.decoder.close()
            self._retry = None

    def _build(self, key: DecoderKey, is_retry: bool) -> Decoder:
        weights = self._models.t3(DTYPES[key.number_format])
        with float32_math(key.number_format):
            prefix = compute_prefix(weights, self._voice_of(key.voice_encoder), key.exaggeration, key.max_text)
        return Decoder(
            weights,
            prefix,
            self._size(slot_bytes(weights, key.max_text, self._max_tokens, key.cfg), is_retry),
            self._max_tokens,
            number_format=key.number_format,
            cfg=key.cfg,
            with_top_p=key.with_top_p,
        )

    def _size(self, bytes_each: int, is_retry: bool) -> int:
        """Slots of a decoder. For retries they depend on the whole card, not on what the usual decoder leaves free."""
        device = self._models.device
        if device.type != "cuda":
            return 1 if is_retry else min(self._requested_slots or CPU_SLOTS, self._max_slots)
        if self._requested_slots and not is_retry:
            return min(self._requested_slots, self._max_slots)
        if is_retry:
            memory = int(self._share * total_memory(device) / RETRY_DIVISOR)
            return min(fit_slots(memory, bytes_each), self._max_slots)
        if bytes_each not in self._sizes:
            self._sizes[bytes_each] = fit_slots(int(self._share * free_memory(device)), bytes_each)
        return min(self._sizes[bytes_each], self._max_slots)


def slot_bytes(weights: T3Weights, max_text: int, max_tokens: int, cfg: bool) -> int:
    """Bytes of one slot's KV cache. With CFG a slot has two rows."""
    capacity = max_text + max_tokens + 2
    row = bytes_per_row(len(weights.layers), weights.norm.shape[0], capacity, weights.dtype)
    return 2 * row if cfg else row


def decoder_key(precision: Precision, sampling: Sampling, num_tokens: int) -> DecoderKey:
    """The key of a request with so many text tokens. ValueError if they are too many for the model."""
    max_text = next((length for length in TEXT_LENGTHS if num_tokens <= length), None)
    if max_text is None:  # on a GPU, an index out of range destroys the CUDA context
        raise ValueError(f"{num_tokens} text tokens are more than the model's {TEXT_LENGTHS[-1]}")
    return DecoderKey(
        number_format=precision.t3,
        voice_encoder=precision.voice_encoder,
        exaggeration=sampling.exaggeration,
        cfg=sampling.cfg_weight > 0,
        with_top_p=sampling.top_p < 1,
        max_text=max_text,
    )
