"""Sequences of frames, one behind the other without padding, in a buffer of a fixed size. Knows no model.

Operations on single frames run over the whole buffer. Operations on neighbours read here where a sequence begins and
ends. Shapes do not depend on the sequences, so the results of one do not depend on the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.device.devices import to_device

BLOCK = 64  # frames of one sequence whose queries one program computes
SHORTEST = 128  # frames that a shorter sequence counts as: this bounds the number of blocks


@dataclass(frozen=True)
class Pack:
    """Tensors are int32 on the device. Unused frames have position 0 and are in no block."""

    position: Tensor  # (N,) of a frame in its sequence
    blocks: Tensor  # (number of blocks, 3): first frame of the block, begin and end of its sequence; unused: zeros
    spans: tuple[tuple[int, int], ...]  # begin and end of each sequence, on the host


def make_pack(lengths: Sequence[int], size: int, device: torch.device) -> Pack:
    """Each sequence twice, for CFG: in the first `size` frames, and at the same place in the next `size`.

    ValueError if they do not fit. They always fit if `size` is at least the sum of max(length, 128).
    """
    position = torch.zeros(size, dtype=torch.int32)
    blocks = torch.zeros(-(-size // BLOCK) + max(size // SHORTEST, 1), 3, dtype=torch.int32)
    if sum(lengths) > size or sum(-(-length // BLOCK) for length in lengths) > len(blocks):
        raise ValueError(f"{len(lengths)} sequences of {sum(lengths)} frames do not fit into {size} frames")
    spans, entries, begin = [], [], 0
    for length in lengths:
        end = begin + length
        spans.append((begin, end))
        position[begin:end] = torch.arange(length)
        entries += [(first, begin, end) for first in range(begin, end, BLOCK)]
        begin = end
    blocks[: len(entries)] = torch.tensor(entries, dtype=torch.int32)
    second = torch.where(blocks[:, 1:2] < blocks[:, 2:], blocks + size, 0)
    return Pack(
        to_device(position.repeat(2), device),
        to_device(torch.cat([blocks, second]), device),
        (*spans, *((begin + size, end + size) for begin, end in spans)),
    )
