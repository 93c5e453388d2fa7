"""The KV cache. Knows no weights.

All rows share one prefix. Conditional rows read its 34 conditioning positions. Unconditional rows also read the
len(text) positions behind them, which have position embeddings but no text. Attention is causal, so one prefix fits
all lengths. All later positions are a row's own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cache:
    prefix: Tensor  # (layers, 2 for keys and values, heads, S, 64); S = 34 + longest text
    own: Tensor  # (layers, 2, R, heads, capacity, 64)


def bytes_per_row(layers: int, width: int, capacity: int, dtype: torch.dtype) -> int:
    """Memory of a row's own keys and values. With CFG an utterance has two rows."""
    return layers * 2 * width * capacity * dtype.itemsize
