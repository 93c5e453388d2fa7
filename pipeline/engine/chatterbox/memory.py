"""How a card's memory is shared out: what stays on it, and how many utterances are decoded at a time.

Pure arithmetic on bytes, but for the names of tensors in a file. Knows no weights.
"""

import logging
import math
from pathlib import Path

import torch
from safetensors import safe_open

from pipeline.config import Precision
from pipeline.device.dtypes import DTYPES
from pipeline.device.memory import total_memory

log = logging.getLogger(__name__)

LARGEST_SIZE = 256  # slots; on an H200 tokens a second are most at 256
RESIDENT_SHARE = 0.55  # of the memory that is free, for keys and values; waveforms need the rest
PHASED_SHARE = 0.8  # where waveforms need nothing at that time
WORKSPACE_SHARE = 12  # of a card for a batch of waveforms; on an H200 no more would help
FEW = 8  # slots; fewer are so slow that taking turns pays
GIB = 2**30


def wants_phases(free: int, s3gen: int, slot: int, wanted: int | None) -> bool:
    """Whether T3 and S3Gen had better take turns; prints why.

    Bytes that are `free` when T3's weights are there, that S3Gen's weights and a slot take; slots that are `wanted`.
    """
    beside, alone = fitting(int(RESIDENT_SHARE * (free - s3gen)), slot), fitting(int(PHASED_SHARE * free), slot)
    phased = beside < (wanted or FEW) and alone > beside
    log.info(
        "engine.memory=auto: %s, since beside T3's weights %.1f GiB are free, room for %d utterances of %.2f GiB, "
        "or for %d if S3Gen is there too",
        *("phased" if phased else "resident", free / GIB, alone, slot / GIB, beside),
    )
    return phased


def workspace(device: torch.device) -> int:
    """Bytes that a batch of waveforms may take: a share of the card, not of what is free, so that batches are equal."""
    return total_memory(device) // WORKSPACE_SHARE if device.type == "cuda" else 2**32


def fitting(memory: int, bytes_each: int) -> int:
    """The largest power of two, from 1 to LARGEST_SIZE, of which so much memory holds so many."""
    size = LARGEST_SIZE
    while size > 1 and size * bytes_each > memory:
        size //= 2
    return size


def s3gen_bytes(file: Path, precision: Precision) -> int:
    """What the weights of flow and vocoder take on a device; the voice's modules are not kept there."""
    parts = {"flow.": precision.flow, "mel2wav.": precision.vocoder}
    with safe_open(file, framework="pt") as opened:
        return sum(
            math.prod(opened.get_slice(name).get_shape()) * DTYPES[number_format].itemsize
            for prefix, number_format in parts.items()
            for name in opened.keys()
            if name.startswith(prefix)
        )
