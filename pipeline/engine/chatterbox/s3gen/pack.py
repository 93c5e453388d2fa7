"""Sequences of frames laid one behind the other, without padding, in a buffer of a fixed size. Knows no model.

What works on single frames runs over the whole buffer; what looks at neighbours asks here where a sequence begins and
ends. Shapes do not depend on who is packed, so what is computed for a sequence does not depend on its company.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.device.devices import to_device

BLOCK = 64  # frames of one sequence that are a program's queries
SHORTEST = 128  # frames that there are for each sequence


@dataclass(frozen=True)
class Pack:
    """All int32 on the device. Frames that no sequence has are at position 0 of nothing, and in no block."""

    position: Tensor  # (N,) of a frame in its sequence
    blocks: Tensor  # (number of blocks, 3): first frame of the block, begin and end of its sequence; unused: zeros
    spans: tuple[tuple[int, int], ...]  # begin and end of each sequence, on the host


def make_pack(lengths: Sequence[int], size: int, device: torch.device) -> Pack:
    """Each of these sequences twice: somewhere in the first `size` frames, and in the same place of the next `size`.

    ValueError if they do not fit; 128 frames each always do.
    """
    position = torch.zeros(size, dtype=torch.int32)
    blocks = torch.zeros(-(-size // BLOCK) + max(size // SHORTEST, 1), 3, dtype=torch.int32)
    if sum(lengths) > size or sum(-(-length // BLOCK) for length in lengths) > len(blocks):
        raise ValueError(f"{len(lengths)} sequences of {sum(lengths)} frames do not fit into {size} frames")
    spans, made, begin = [], [], 0
    for length in lengths:
        end = begin + length
        spans.append((begin, end))
        position[begin:end] = torch.arange(length)
        made += [(first, begin, end) for first in range(begin, end, BLOCK)]
        begin = end
    blocks[: len(made)] = torch.tensor(made, dtype=torch.int32)
    again = torch.where(blocks[:, 1:2] < blocks[:, 2:], blocks + size, 0)
    return Pack(
        to_device(position.repeat(2), device),
        to_device(torch.cat([blocks, again]), device),
        (*spans, *((begin + size, end + size) for begin, end in spans)),
    )
