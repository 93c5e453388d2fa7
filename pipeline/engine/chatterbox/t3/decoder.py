"""A decoder with a fixed number of slots. A step draws one token for each slot. Knows nothing of queues.

All state is in tensors at fixed addresses, and a step never waits for the host, so on CUDA a step is one captured
graph. Shapes depend neither on how many slots are in use nor on which prompts are prefilled together, so an
utterance's bits do not depend on the rest of the batch.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.dtypes import float32_math
from pipeline.device.graphs import capture
from pipeline.engine.chatterbox.t3.cache import Cache
from pipeline.engine.chatterbox.t3.slots import Prompt, empty_slots, start, stop
from pipeline.engine.chatterbox.t3.transformer import choose_t3_ops, prefill_text, run_layers
from pipeline.engine.chatterbox.t3.weights import CONDITIONING, T3Weights
from pipeline.engine.chatterbox.tuning import get_tuning
from pipeline.engine.chatterbox.vocabulary import START_SPEECH, STOP_SPEECH

LAG = 1  # steps queued on a GPU beyond the last one whose result the host has seen


@dataclass(frozen=True)
class Decoded:
    prompt: Prompt
    tokens: Tensor  # (num_tokens,) int64 on the CPU; the last one is the end token if it came
    ended: bool  # the end token came, at the latest as the last token of the cap
    finite: bool  # False: a logit was NaN or infinite, and the tokens mean nothing


@dataclass(frozen=True)
class Prefill:
    """`run()` prefills the texts `text` (G, T) into the cache rows of the slots `slots` (G,)."""

    text: Tensor
    slots: Tensor
    run: Callable[[], None]


class Decoder:
    """B slots behind one prefix. Either all of its prompts use CFG, or none does."""

    @torch.inference_mode()
    def __init__(
        self,
        weights: T3Weights,
        prefix: Tensor,  # (layers, 2, heads, 34 + longest text, 64)
        size: int,
        max_tokens: int,
        *,
        number_format: str = "fp32",
        cfg: bool = True,
        with_top_p: bool = True,  # False if no prompt has top_p < 1: spares a sort
    ) -> None:
        self.weights, self.size, self.max_tokens = weights, size, max_tokens
        self.cfg, self.with_top_p = cfg, with_top_p
        self.prompts: dict[int, Prompt] = {}  # by slot
        self._number_format = number_format
        self._ops = choose_t3_ops(weights.device)
        self.max_text = prefix.shape[3] - CONDITIONING
        rows = 2 * size if cfg else size  # R: the conditional ones first, then the unconditional ones
        capacity = self.max_text + max_tokens + 2
        layers, _, heads, _, width = prefix.shape
        # Uninitialised, so that a CPU maps only what is used. No result depends on what was never written.
        self.cache = Cache(prefix, prefix.new_empty(layers, 2, rows, heads, capacity, width))
        self.slots = empty_slots(size, max_tokens, len(weights.head), weights.device)
        self._active_copies: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        self._prefills: dict[int, Prefill] = {}  # by length
        self._replay = capture(self._step, weights.device)

    @property
    def group(self) -> int:
        """How many prompts are best prefilled together."""
        return min(get_tuning(self.weights.device).text_group, self.size)

    def check(self, prompt: Prompt) -> None:
        """ValueError for a prompt that would index outside a table: on a GPU all later calls would fail too."""
        if not 0 < len(prompt.text) <= self.max_text:
            raise ValueError(f"{len(prompt.text)} text tokens where 1 to {self.max_text} are possible")
        if not all(0 <= token < len(self.weights.text_emb) for token in prompt.text):
            raise ValueError("text tokens that the model does not have")
        if not 0 < prompt.max_tokens <= self.max_tokens:
            raise ValueError(f"a cap of {prompt.max_tokens} tokens where 1 to {self.max_tokens} are possible")

    def close(self) -> None:
        """Free its memory, even while something still refers to the decoder."""
        self._prefills.clear()
        del self._replay, self.cache, self.slots

    def in_use(self) -> str:
        """What it runs with, read from its tensors and operations."""
        dtypes = {tensor.dtype for layer in self.weights.layers for tensor in vars(layer).values()}
        names = "/".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes | {self.cache.own.dtype}))
        attention = self._ops.decode_attention.__module__.rpartition(".")[2]
        graphs = "step and prefill as CUDA graphs" if self._replay != self._step else "no graphs"
        return f"{names} weights and cache, {self.size} slots, attention of {attention}, {graphs}"

    @torch.inference_mode()
    def fill(self, prompts: Sequence[Prompt]) -> None:
        """Prefill prompts into free slots; there must be enough. ValueError as in `check`."""
        if not prompts:
            return
        free = [slot for slot in range(self.size) if slot not in self.prompts]
        placed = dict(zip(free, prompts, strict=False))
        self._active_copies.clear()  # from before these slots were filled
        lengths = {slot: self._round_up_length(prompt) for slot, prompt in placed.items()}
        for length in sorted(set(lengths.values())):
            slots = [slot for slot in placed if lengths[slot] == length]
            for begin in range(0, len(slots), self.group):
                self._prefill({slot: placed[slot] for slot in slots[begin : begin + self.group]}, length)
        self.prompts |= placed

    @torch.inference_mode()
    def step(self) -> list[int]:
        """Draw a token for every active slot. Returns the slots that have ended; on a GPU, those of `LAG` steps ago."""
        self._replay()
        active = self._poll_active()
        return [] if active is None else [slot for slot in self.prompts if not active[slot]]

    @torch.inference_mode()
    def take(self, slots: Sequence[int]) -> list[Decoded]:
        """Return what these slots drew, and free them."""
        if not slots:
            return []
        index = torch.tensor(slots, device=self.weights.device)
        s = self.slots
        drawn, num_tokens = s.drawn[index].cpu(), (s.step[index] - 1).tolist()
        ended, finite = s.ended[index].tolist(), s.finite[index].tolist()
        stop(s, index)
        self._active_copies.clear()  # from before these slots were freed
        return [
            Decoded(self.prompts.pop(slot), drawn[row, : num_tokens[row]].clone(), ended[row], finite[row])
            for row, slot in enumerate(slots)
        ]

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Cache the last token's keys and values; the logits, after CFG, of each slot's next token. (B, 8194)"""
        w, s = self.weights, self.slots
        last, own = s.last, s.text + s.step
        position = (s.step - 1).clamp(min=0)  # stock gives both BOS the first speech position
        shared = torch.full_like(own, CONDITIONING)
        if self.cfg:
            last, position = last.repeat(2), position.repeat(2)
            shared, own = torch.cat([shared, shared + s.text]), torch.cat([own, s.step])
        attend = self._ops.decode_attention(w.rope, self.cache, shared, own)
        with float32_math(self._number_format):
            hidden = run_layers(w, w.speech_emb[last], w.speech_pos[position], attend).float()  # (R, 1024)
            if self.cfg:  # before the head: it is linear, so B rows suffice
                conditional, unconditional = hidden.chunk(2)
                hidden = conditional + s.cfg_weight * (conditional - unconditional)
        with float32_math("fp32"):  # TF32 would change which tokens are drawn
            return F.linear(hidden, w.head)

    @torch.inference_mode()
    def draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each slot, (B,) int64, and whether all of its logits are finite, (B,) bool."""
        s, top_p = self.slots, self.slots.top_p if self.with_top_p else None
        return self._ops.sample(logits, s.seen, s.penalty, s.temperature, s.min_p, top_p, s.seed, s.step)

    @torch.inference_mode()
    def advance(self, drawn: Tensor, finite: Tensor) -> None:
        """Append one token to each slot. Step 0 appends the second BOS, whatever was drawn. (B,) each"""
        s = self.slots
        token = drawn.masked_fill(s.step == 0, START_SPEECH)
        s.last.copy_(token)
        s.seen.scatter_(1, token[:, None], True)
        s.drawn.scatter_(1, (s.step - 1).clamp(min=0)[:, None], token[:, None])
        s.ended.logical_or_(s.active & (token == STOP_SPEECH))
        s.finite.logical_and_(finite | ~s.active)
        s.step.add_(s.active)
        s.active.logical_and_(s.finite & ~s.ended & (s.step <= s.cap))

    def _step(self) -> None:
        self.advance(*self.draw(self.logits()))

    def _prefill(self, prompts: dict[int, Prompt], length: int) -> None:
        """Prefill a group of prompts, padded to one length, into their slots."""
        slots = list(prompts)
        # A group that is not full repeats its first prompt, which writes the same values twice.
        members = slots + slots[:1] * (self.group - len(slots))
        if length not in self._prefills:
            self._prefills[length] = self._make_prefill(length, members)
        prefill = self._prefills[length]
        text = torch.zeros(self.group, length, dtype=torch.int64)
        for row, slot in enumerate(members):
            prompt = prompts[slot]
            self.check(prompt)
            text[row, : len(prompt.text)] = torch.tensor(prompt.text)
        prefill.text.copy_(text)
        prefill.slots.copy_(torch.tensor(members))
        prefill.run()
        start(self.slots, prefill.slots[: len(slots)], list(prompts.values()), START_SPEECH)

    def _make_prefill(self, length: int, members: list[int]) -> Prefill:
        """Capturing it writes to `members`, the slots that are about to be filled."""
        device = self.weights.device
        text = torch.zeros(self.group, length, dtype=torch.int64, device=device)
        slots = torch.tensor(members, device=device)

        def store(layer: int, keys_values: Tensor) -> None:
            self.cache.own[layer, ..., :length, :].index_copy_(1, slots, keys_values)

        def prefill() -> None:
            with float32_math(self._number_format):
                prefill_text(self.weights, text, self.cache.prefix, store)

        return Prefill(text, slots, capture(prefill, device))

    def _round_up_length(self, prompt: Prompt) -> int:
        multiple = get_tuning(self.weights.device).text_multiple
        return min(-(-len(prompt.text) // multiple) * multiple, self.max_text)

    def _poll_active(self) -> list[bool] | None:
        """Which slots are active. On a GPU, as of `LAG` steps ago, so that the next step is already queued; or None."""
        active = self.slots.active
        if active.device.type != "cuda":
            return active.tolist()
        copy = torch.empty(self.size, dtype=torch.bool, pin_memory=True).copy_(active, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._active_copies.append((copy, copied))
        if len(self._active_copies) <= LAG:
            return None
        copy, copied = self._active_copies.popleft()
        copied.synchronize()
        return copy.tolist()
