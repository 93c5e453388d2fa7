"""Requests to speech tokens, many at a time: which of them can share a decoder, and how large it may be.

Knows nothing of waveforms, and of the decoder only what goes in and comes out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.config import ChatterboxConfig
from pipeline.engine import NotFinite, Request
from pipeline.engine.chatterbox.device import free_memory, freed, ran_out, total_memory
from pipeline.engine.chatterbox.memory import LARGEST_SIZE, RESIDENT_SHARE, fitting
from pipeline.engine.chatterbox.model import Models
from pipeline.engine.chatterbox.precision import WEIGHTS, float32_math
from pipeline.engine.chatterbox.shelf import num_bytes
from pipeline.engine.chatterbox.t3.batch import decode
from pipeline.engine.chatterbox.t3.cache import bytes_per_row
from pipeline.engine.chatterbox.t3.decoder import Decoded, Decoder
from pipeline.engine.chatterbox.t3.slots import Prompt
from pipeline.engine.chatterbox.t3.transformer import read_prefix
from pipeline.engine.chatterbox.t3.weights import Weights
from pipeline.errors import OutOfMemory
from pipeline.voice import Conditionals

log = logging.getLogger(__name__)

START, STOP = 255, 0  # text tokens
TEXT_LENGTHS = (256, 512, 1024, 2050)  # a book's sentences fit into the first; the model has 2050 positions
CPU_SIZE = 8  # slots
RARE = 16  # what is tried again in another number format gets by with so many times less, beside the usual decoder


@dataclass(frozen=True)
class Kind:
    """What requests that share a decoder have in common. Each is of a kind by itself, so company does not enter it."""

    number_format: str
    voice: str  # the voice encoder's number format
    exaggeration: float
    guided: bool
    with_top_p: bool
    max_text: int


class Decoders:
    """Builds a decoder for each kind of requests, and keeps two: the last in the usual number format, and the last in
    another one.
    """

    def __init__(
        self,
        models: Models,
        voice_of: Callable[[str], Conditionals],
        options: ChatterboxConfig,
        usual: str,
        share: float = RESIDENT_SHARE,  # of a GPU's free memory, for keys and values
    ) -> None:
        self._models, self._voice_of, self._max_tokens = models, voice_of, options.max_tokens
        self._usual, self._share = usual, share
        self._wanted = options.slots
        self._most = self._wanted or LARGEST_SIZE  # until memory runs out
        self._sizes: dict[int, int] = {}  # slots by the bytes of each: as many when a decoder is built anew
        self._kept: dict[bool, tuple[Kind, Decoder]] = {}  # by whether it is a rare one
        self.in_use: dict[str, str] = {}  # by number format

    def decode(
        self, requests: Iterable[Request], stopping: Callable[[], bool]
    ) -> Iterator[tuple[Request, Decoded | Exception]]:
        """Each request as soon as it has ended, kind after kind, or with what is wrong with it.

        Where memory runs out, what has not ended begins anew in half as many slots.
        """
        kinds: dict[Kind, dict[Prompt, Request]] = {}
        for request in requests:
            try:
                prompt = self.prompt_of(request)
                kinds.setdefault(kind_of(request, prompt), {})[prompt] = request
            except Exception as error:  # its fault alone
                yield request, error
        for kind, prompts in kinds.items():
            while prompts and not stopping():
                try:
                    for decoded in decode(self.decoder_of(kind), list(prompts), stopping):
                        yield prompts.pop(decoded.prompt), decoded
                    continue
                except NotFinite as error:  # the voice, and so nobody's alone
                    yield from ((request, error) for request in prompts.values())
                    break
                except Exception as error:
                    if not ran_out(error):
                        raise
                    if self._most == 1:
                        raise OutOfMemory(
                            f"{self._models.device} has too little memory even for engine.batch_size=1: "
                            f"lower engine.max_tokens={self._max_tokens}, free memory, or use device=cpu"
                        ) from error
                self.halve()  # only now: an exception that is being handled keeps the memory of its frames

    @property
    def last(self) -> Decoder:
        """The one of the usual number format that was built last."""
        return self._kept[False][1]

    def bytes(self) -> int:
        """What a decoder that is there and its weights take; 0: none is there."""
        made = [num_bytes(decoder.weights) + num_bytes(decoder.cache) for _, decoder in self._kept.values()]
        return max(made, default=0)

    def halve(self) -> None:
        """Free all decoders' memory; later ones have half the slots."""
        self._most = max((self.last.size if False in self._kept else self._most) // 2, 1)
        self._sizes.clear()
        self.forget(cycles=True)
        log.warning("out of memory on %s: from here on %d utterances at a time", self._models.device, self._most)

    def forget(self, but_usual: bool = False, cycles: bool = False) -> None:
        """Free the memory of both decoders, or of the rare one."""
        for rare in [rare for rare in self._kept if rare or not but_usual]:
            _, decoder = self._kept.pop(rare)
            decoder.close()
        freed(self._models.device, cycles)

    def prompt_of(self, request: Request) -> Prompt:
        words = self._models.tokenizer.text_to_tokens(request.utterance.spoken_text)  # (1, num_text_tokens - 2)
        return Prompt((START, *words[0].tolist(), STOP), request.seed, request.sampling, request.max_tokens)

    def decoder_of(self, kind: Kind) -> Decoder:
        """The one that is kept, if it is of that kind."""
        rare = kind.number_format != self._usual
        if rare in self._kept:
            found, decoder = self._kept[rare]
            if found == kind:
                return decoder
            del decoder
            self.forget(but_usual=rare)  # its memory is wanted
        weights = self._models.t3(WEIGHTS[kind.number_format])
        with float32_math(kind.number_format):
            prefix = read_prefix(weights, self._voice_of(kind.voice), kind.exaggeration, kind.max_text)
        made = Decoder(
            weights,
            prefix,
            self._size(slot_bytes(weights, kind.max_text, self._max_tokens, kind.guided), rare),
            self._max_tokens,
            number_format=kind.number_format,
            guided=kind.guided,
            with_top_p=kind.with_top_p,
        )
        self._kept[rare] = kind, made
        self.in_use[f"t3 {kind.number_format}"] = made.in_use()
        return made

    def _size(self, bytes_each: int, rare: bool) -> int:
        """Slots; those of a rare decoder depend on the card alone, not on what the usual one has left of it."""
        device = self._models.device
        if device.type != "cuda":
            return 1 if rare else min(self._wanted or CPU_SIZE, self._most)
        if self._wanted and not rare:
            return min(self._wanted, self._most)
        if rare:
            return min(fitting(int(self._share * total_memory(device) / RARE), bytes_each), self._most)
        if bytes_each not in self._sizes:
            self._sizes[bytes_each] = fitting(int(self._share * free_memory(device)), bytes_each)
        return min(self._sizes[bytes_each], self._most)


def slot_bytes(weights: Weights, max_text: int, max_tokens: int, guided: bool) -> int:
    """What an utterance's keys and values take; with guidance it has two rows of them."""
    capacity = max_text + max_tokens + 2
    row = bytes_per_row(len(weights.layers), weights.norm.shape[0], capacity, weights.dtype)
    return 2 * row if guided else row


def kind_of(request: Request, prompt: Prompt) -> Kind:
    sampling = request.sampling
    max_text = next((length for length in TEXT_LENGTHS if len(prompt.text) <= length), None)
    if max_text is None:  # on a GPU, looking up a position that is not there kills the context
        raise ValueError(f"{len(prompt.text)} text tokens are more than the model's {TEXT_LENGTHS[-1]}")
    return Kind(
        number_format=request.precision.t3,
        voice=request.precision.voice_encoder,
        exaggeration=sampling.exaggeration,
        guided=sampling.cfg_weight > 0,
        with_top_p=sampling.top_p < 1,
        max_text=max_text,
    )
