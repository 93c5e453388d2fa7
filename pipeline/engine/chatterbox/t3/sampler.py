"""From logits to tokens, all rows at once: pure functions on (B, V), no state, nothing that waits for the host.

Order and edges are stock's: repetition penalty, temperature, min-p, top-p. A draw's noise is a hash of the row's seed,
its step and the token, so it depends neither on company nor on what was drawn before.
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
    """A token of each row, (B,) int64, and whether all of the row's logits are numbers, (B,) bool."""
    shares = process(logits, seen, penalty, temperature, min_p, top_p)
    return draw(shares, seeds, steps), logits.isfinite().all(-1)


def process(
    logits: Tensor, seen: Tensor, penalty: Tensor, temperature: Tensor, min_p: Tensor, top_p: Tensor | None
) -> Tensor:
    """Each token's probability as a share of the likeliest one's; 0 for what is cut off. (B, V)

    seen (B, V) bool; the others (B, 1). top_p None leaves out a sort that changes nothing where all rows have 1.
    """
    penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
    logits = torch.where(seen, penalised, logits) / temperature
    shares = (logits - logits.amax(-1, keepdim=True)).exp()
    shares = shares.masked_fill(shares < min_p, 0.0)
    return shares if top_p is None else _likeliest(shares, top_p)


def _likeliest(shares: Tensor, top_p: Tensor) -> Tensor:
    """Without the least likely tokens that have 1 - top_p of the probability together."""
    ascending, order = shares.sort(dim=-1, stable=True)
    cut = ascending.cumsum(-1) <= (1 - top_p) * ascending.sum(-1, keepdim=True)
    cut[:, -1] = False
    return shares.masked_fill(torch.empty_like(cut).scatter(-1, order, cut), 0.0)


def draw(shares: Tensor, seeds: Tensor, steps: Tensor) -> Tensor:
    """A token of each row, with probability proportional to its share. seeds and steps (B,) int64; (B,) int64

    The least of independent exponentials of rates p falls on each with probability p.
    """
    tokens = torch.arange(shares.shape[1], device=shares.device)
    return (shares / exponential(random_bits(seeds[:, None], steps[:, None], tokens))).argmax(-1)
