"""Requests to speech tokens, many at a time: which of them share a decoder, and how large it may be.

Knows nothing of waveforms, and of the decoder only what goes in and comes out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.config import ChatterboxConfig
from pipeline.data import NotFinite, Request
from pipeline.device.dtypes import DTYPES, float32_math
from pipeline.device.memory import catch_oom, free_memory, release_memory, total_memory
from pipeline.device.offload import num_bytes
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.memory import LARGEST_SIZE, RESIDENT_SHARE, fitting
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.cache import bytes_per_row
from pipeline.engine.chatterbox.t3.decoder import Decoded, Decoder
from pipeline.engine.chatterbox.t3.slots import Prompt
from pipeline.engine.chatterbox.t3.transformer import read_prefix
from pipeline.engine.chatterbox.t3.weights import T3Weights
from pipeline.engine.chatterbox.vocabulary import START_TEXT, STOP_TEXT
from pipeline.engine.chatterbox.voice import Conditionals
from pipeline.errors import OutOfMemory

log = logging.getLogger(__name__)

TEXT_LENGTHS = (256, 512, 1024, 2050)  # a book's sentences fit into the first; the model has 2050 positions
CPU_SIZE = 8  # slots
RETRY_SHARE = 16  # a decoder for retries in another dtype gets 1/16 of the usual decoder's share of memory

DecodedRequest = tuple[Request, Decoded | Exception]  # or what is wrong with the request


@dataclass(frozen=True)
class DecoderKey:
    """What requests that share a decoder have in common. It is read from each request alone, never from the batch."""

    number_format: str
    voice_encoder: str  # its number format
    exaggeration: float
    cfg: bool
    with_top_p: bool
    max_text: int


@dataclass(frozen=True)
class KeptDecoder:
    key: DecoderKey
    decoder: Decoder


class TokenStage:
    """Builds a decoder for each key and keeps two: the last in the usual number format, and the last for retries."""

    def __init__(
        self,
        models: LoadedModels,
        voice_of: Callable[[str], Conditionals],
        options: ChatterboxConfig,
        usual: str,
        share: float = RESIDENT_SHARE,  # of a GPU's free memory, for keys and values
    ) -> None:
        self._models, self._voice_of, self._max_tokens = models, voice_of, options.max_tokens
        self._usual_format, self._share = usual, share
        self._wanted = options.slots
        self._most = self._wanted or LARGEST_SIZE  # until memory runs out
        self._sizes: dict[int, int] = {}  # slots by the bytes of each: the same when a decoder is built anew
        self._usual: KeptDecoder | None = None
        self._retry: KeptDecoder | None = None  # of another number format
        self.in_use: dict[str, str] = {}  # by number format

    def decode(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[DecodedRequest]:
        """Each request as soon as it has ended, key after key.

        Where memory runs out, what has not ended begins anew in half as many slots.
        """
        by_key: dict[DecoderKey, dict[Prompt, Request]] = {}
        for request in requests:
            try:
                prompt = self.prompt_of(request)
                by_key.setdefault(decoder_key(request, prompt), {})[prompt] = request
            except Exception as error:  # the fault of this request alone
                yield request, error
        for key, prompts in by_key.items():
            while prompts and not stopping():
                try:
                    with catch_oom() as oom:
                        for decoded in decode(self.decoder_of(key), list(prompts), stopping, self._models.meter):
                            yield prompts.pop(decoded.prompt), decoded
                except NotFinite as error:  # the voice's numbers, so it concerns all of them
                    yield from ((request, error) for request in prompts.values())
                    break
                if oom.error:
                    self._halve_after(oom.error)

    def _halve_after(self, error: Exception) -> None:
        if self._most == 1:
            raise OutOfMemory(
                f"{self._models.device} has too little memory even for engine.batch_size=1: "
                f"lower engine.max_tokens={self._max_tokens}, free memory, or use device=cpu"
            ) from error
        self.halve()

    @property
    def usual_decoder(self) -> Decoder:
        """The one of the usual number format that was built last."""
        return self._usual.decoder

    def bytes(self) -> int:
        """What the larger decoder and its weights take; 0: there is none."""
        kept = [one.decoder for one in (self._usual, self._retry) if one]
        return max((num_bytes(decoder.weights) + num_bytes(decoder.cache) for decoder in kept), default=0)

    def halve(self) -> None:
        """Free both decoders' memory; later ones have half the slots."""
        self._most = max((self._usual.decoder.size if self._usual else self._most) // 2, 1)
        self._sizes.clear()
        self.forget(cycles=True)
        log.warning("out of memory on %s: from here on %d utterances at a time", self._models.device, self._most)

    def forget(self, cycles: bool = False) -> None:
        """Free the memory of both decoders."""
        self._close_retry()
        if self._usual:
            self._usual.decoder.close()
            self._usual = None
        release_memory(self._models.device, cycles)

    def prompt_of(self, request: Request) -> Prompt:
        words = self._models.tokenizer.text_to_tokens(request.utterance.spoken_text)  # (1, num_text_tokens - 2)
        return Prompt((START_TEXT, *words[0].tolist(), STOP_TEXT), request.seed, request.sampling, request.max_tokens)

    def decoder_of(self, key: DecoderKey) -> Decoder:
        """The kept one, if it has that key."""
        is_retry = key.number_format != self._usual_format
        kept = self._retry if is_retry else self._usual
        if kept and kept.key == key:
            return kept.decoder
        had, kept = kept is not None, None  # no name may keep the memory of the one that goes
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
            prefix = read_prefix(weights, self._voice_of(key.voice_encoder), key.exaggeration, key.max_text)
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
        """Slots. A retry decoder's number depends on the card alone, not on what the usual one has left of it."""
        device = self._models.device
        if device.type != "cuda":
            return 1 if is_retry else min(self._wanted or CPU_SIZE, self._most)
        if self._wanted and not is_retry:
            return min(self._wanted, self._most)
        if is_retry:
            return min(fitting(int(self._share * total_memory(device) / RETRY_SHARE), bytes_each), self._most)
        if bytes_each not in self._sizes:
            self._sizes[bytes_each] = fitting(int(self._share * free_memory(device)), bytes_each)
        return min(self._sizes[bytes_each], self._most)


def slot_bytes(weights: T3Weights, max_text: int, max_tokens: int, cfg: bool) -> int:
    """What an utterance's keys and values take; with CFG it has two rows of them."""
    capacity = max_text + max_tokens + 2
    row = bytes_per_row(len(weights.layers), weights.norm.shape[0], capacity, weights.dtype)
    return 2 * row if cfg else row


def decoder_key(request: Request, prompt: Prompt) -> DecoderKey:
    sampling = request.sampling
    max_text = next((length for length in TEXT_LENGTHS if len(prompt.text) <= length), None)
    if max_text is None:  # on a GPU, looking up a position that is not there kills the context
        raise ValueError(f"{len(prompt.text)} text tokens are more than the model's {TEXT_LENGTHS[-1]}")
    return DecoderKey(
        number_format=request.precision.t3,
        voice_encoder=request.precision.voice_encoder,
        exaggeration=sampling.exaggeration,
        cfg=sampling.cfg_weight > 0,
        with_top_p=sampling.top_p < 1,
        max_text=max_text,
    )
