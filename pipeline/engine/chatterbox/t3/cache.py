"""Keys and values of what has been read so far. Knows no weights.

All rows begin with the voice: the same conditioning, and without guidance's text nothing but its positions. Being
causal, they share one prefix, of which a row with the text reads the conditioning, and its twin without the text as
much more as the text is long. What comes after is a row's own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cache:
    prefix: Tensor  # (layers, 2 for keys and values, heads, 34 + text, 64)
    own: Tensor  # (layers, 2, rows, heads, capacity, 64)


def bytes_per_row(layers: int, width: int, capacity: int, dtype: torch.dtype) -> int:
    """What a row's own keys and values take; an utterance with guidance has two rows."""
    return layers * 2 * width * capacity * dtype.itemsize
