"""What a decoder's slots hold, as tensors that steps change in place. Knows no weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Sampling


@dataclass(frozen=True, eq=False)
class Prompt:
    """What to say and how to draw it. Voice and exaggeration are the decoder's."""

    text: Sequence[int]  # text tokens with their start and stop
    seed: int  # 0 <= seed < 2**63
    sampling: Sampling
    max_tokens: int


@dataclass(frozen=True)
class Slots:
    """A slot that is not active goes through the motions of a step and gets nowhere."""

    active: Tensor  # (B,) bool
    ended: Tensor  # (B,) bool, the end token has come
    finite: Tensor  # (B,) bool, all logits were numbers
    text: Tensor  # (B,) int64, how many text tokens
    cap: Tensor  # (B,) int64, how many tokens at most
    seed: Tensor  # (B,) int64
    step: Tensor  # (B,) int64, steps done: stock's two BOS, then tokens
    last: Tensor  # (B,) int64, the token that the next step reads
    cfg_weight: Tensor  # (B, 1) float32, and so the next four
    penalty: Tensor
    temperature: Tensor
    min_p: Tensor
    top_p: Tensor
    seen: Tensor  # (B, 8194) bool, what the repetition penalty falls on
    drawn: Tensor  # (B, max_tokens + 1) int64


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
    """Let the slots `index` (N,) begin with these prompts. What was drawn before stays; `step` tells what counts."""
    whole = [(len(prompt.text), prompt.max_tokens, prompt.seed) for prompt in prompts]
    for column, values in zip((slots.text, slots.cap, slots.seed), torch.tensor(whole).to(index.device).T, strict=True):
        column[index] = values
    samplings = [prompt.sampling for prompt in prompts]
    real = [(s.cfg_weight, s.repetition_penalty, s.temperature, s.min_p, s.top_p) for s in samplings]
    columns = (slots.cfg_weight, slots.penalty, slots.temperature, slots.min_p, slots.top_p)
    for column, values in zip(columns, torch.tensor(real, dtype=torch.float32).to(index.device).T, strict=True):
        column[index, 0] = values
    slots.step.index_fill_(0, index, 0)
    slots.last.index_fill_(0, index, start_token)
    slots.seen.index_fill_(0, index, False)  # the first step, which puts BOS behind BOS, marks it
    slots.ended.index_fill_(0, index, False)
    slots.finite.index_fill_(0, index, True)
    slots.active.index_fill_(0, index, True)


def stop(slots: Slots, index: Tensor) -> None:
    """Free slots read as little as possible."""
    for column in (slots.active, slots.step, slots.text):
        column.index_fill_(0, index, 0)
