"""From logits to tokens, all rows at once: pure functions on (B, V) that never wait for the host.

Order and edge cases are stock's: repetition penalty, temperature, min-p, top-p. A draw's noise is a hash of the row's
seed, its step and the token, so it depends neither on other rows nor on earlier draws.
"""

import torch
from torch import Tensor

from pipeline.device.hash import random_bits
from pipeline.device.random import exponential


def sample(
    logits: Tensor,
    seen: Tensor,
    penalty: Tensor,
    temperature: Tensor,
    min_p: Tensor,
    top_p: Tensor | None,
    seeds: Tensor,
    steps: Tensor,
) -> tuple[Tensor, Tensor]:
    """Each row's token, (B,) int64, and whether all of its logits are finite, (B,) bool; see `process` and `draw`."""
    shares = process(logits, seen, penalty, temperature, min_p, top_p)
    return draw(shares, seeds, steps), logits.isfinite().all(-1)


def process(
    logits: Tensor, seen: Tensor, penalty: Tensor, temperature: Tensor, min_p: Tensor, top_p: Tensor | None
) -> Tensor:
    """Shares: unnormalised probabilities, 1 for the likeliest token, 0 for tokens that are cut off. (B, V)

    seen (B, V) bool: the penalised tokens. The others (B, 1). top_p=None is top_p=1 for all rows, without its sort.
    """
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    logits = torch.where(seen, penalised, logits) / temperature
    shares = (logits - logits.amax(-1, keepdim=True)).exp()
    shares = shares.masked_fill(shares < min_p, 0.0)
    return shares if top_p is None else _apply_top_p(shares, top_p)


def _apply_top_p(shares: Tensor, top_p: Tensor) -> Tensor:
    """Cut off the least likely tokens that together have at most 1 - top_p of the probability."""
    ascending, order = shares.sort(dim=-1, stable=True)
    cut = ascending.cumsum(-1) <= (1 - top_p) * ascending.sum(-1, keepdim=True)
    cut[:, -1] = False
    return shares.masked_fill(torch.empty_like(cut).scatter(-1, order, cut), 0.0)


def draw(shares: Tensor, seeds: Tensor, steps: Tensor) -> Tensor:
    """A token of each row, with probability proportional to its share. seeds and steps (B,) int64; (B,) int64

    Of independent exponentials with rates p, number i is the smallest with probability p[i] / sum(p).
    """
    tokens = torch.arange(shares.shape[1], device=shares.device)
    return (shares / exponential(random_bits(seeds[:, None], steps[:, None], tokens))).argmax(-1)
