"""The state of a decoder's slots, as tensors that steps change in place. Knows no weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Sampling


@dataclass(frozen=True, eq=False)
class Prompt:
    """Text and sampling of one utterance. Voice and exaggeration belong to the decoder."""

    text: Sequence[int]  # text tokens, start and stop token included
    seed: int  # 0 <= seed < 2**63
    sampling: Sampling
    max_tokens: int


@dataclass(frozen=True)
class Slots:
    """A step computes inactive slots too, but they do not advance."""

    active: Tensor  # (B,) bool
    ended: Tensor  # (B,) bool, the end token came
    finite: Tensor  # (B,) bool, no logit was NaN or infinite
    text: Tensor  # (B,) int64, number of text tokens
    cap: Tensor  # (B,) int64, most speech tokens
    seed: Tensor  # (B,) int64
    step: Tensor  # (B,) int64, steps done: stock's two BOS, then tokens
    last: Tensor  # (B,) int64, the token that the next step reads
    cfg_weight: Tensor  # (B, 1) float32, as the next four
    penalty: Tensor
    temperature: Tensor
    min_p: Tensor
    top_p: Tensor
    seen: Tensor  # (B, 8194) bool, the tokens that are penalised
    drawn: Tensor  # (B, max_tokens + 1) int64, tokens so far


def empty_slots(size: int, max_tokens: int, vocabulary: int, device: torch.device) -> Slots:
    with torch.device(device):
        return Slots(
            **{name: torch.zeros(size, dtype=torch.bool) for name in ("active", "ended", "finite")},
            **{name: torch.zeros(size, dtype=torch.int64) for name in ("text", "cap", "seed", "step", "last")},
            **{name: torch.ones(size, 1) for name in ("cfg_weight", "penalty", "temperature", "min_p", "top_p")},
            seen=torch.zeros(size, vocabulary, dtype=torch.bool),
            drawn=torch.zeros(size, max_tokens + 1, dtype=torch.int64),
        )


def start(slots: Slots, index: Tensor, prompts: Sequence[Prompt], start_token: int) -> None:
    """Begin one prompt in each of the slots `index`. `drawn` keeps old tokens; `step` counts the valid ones."""
    ints = [(len(prompt.text), prompt.max_tokens, prompt.seed) for prompt in prompts]
    for column, values in zip((slots.text, slots.cap, slots.seed), torch.tensor(ints).to(index.device).T, strict=True):
        column[index] = values
    samplings = [prompt.sampling for prompt in prompts]
    floats = [(s.cfg_weight, s.repetition_penalty, s.temperature, s.min_p, s.top_p) for s in samplings]
    columns = (slots.cfg_weight, slots.penalty, slots.temperature, slots.min_p, slots.top_p)
    for column, values in zip(columns, torch.tensor(floats, dtype=torch.float32).to(index.device).T, strict=True):
        column[index, 0] = values
    slots.step.index_fill_(0, index, 0)
    slots.last.index_fill_(0, index, start_token)
    slots.seen.index_fill_(0, index, False)  # step 0 appends BOS, and marks it as seen
    slots.ended.index_fill_(0, index, False)
    slots.finite.index_fill_(0, index, True)
    slots.active.index_fill_(0, index, True)


def stop(slots: Slots, index: Tensor) -> None:
    """Free the slots `index`. Without step and text, their attention reads as little as possible."""
    for column in (slots.active, slots.step, slots.text):
        column.index_fill_(0, index, 0)
