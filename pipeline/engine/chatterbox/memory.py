"""How a GPU's memory is divided: resident or phased weights, slots of a decoder, bytes of a waveform batch.

Arithmetic on bytes; of the weights it reads only a file's header. Knows no weights.
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

MAX_SLOTS = 256  # on an H200 this gives the most tokens a second
RESIDENT_SHARE = 0.55  # of free memory, for the KV cache; waveforms need the rest
PHASED_SHARE = 0.8  # the same while S3Gen is offloaded
WORKSPACE_DIVISOR = 12  # a waveform batch gets 1/12 of the card; on an H200 more would not help
FEW_SLOTS = 8  # decoding with fewer is so slow that phases are faster
GIB = 2**30


def choose_phased(free: int, s3gen: int, slot: int, wanted: int | None) -> bool:
    """Whether T3 and S3Gen should take turns on the device. Logs why.

    free: bytes left after T3's weights; s3gen, slot: bytes that each needs; wanted: requested slots, or None.
    """
    resident_slots = fit_slots(int(RESIDENT_SHARE * (free - s3gen)), slot)
    phased_slots = fit_slots(int(PHASED_SHARE * free), slot)
    phased = resident_slots < (wanted or FEW_SLOTS) and phased_slots > resident_slots
    log.info(
        "engine.memory=auto: %s, since %.1f GiB are free after loading T3: room for %d utterances of %.2f GiB, "
        "or for %d if S3Gen is loaded too",
        *("phased" if phased else "resident", free / GIB, phased_slots, slot / GIB, resident_slots),
    )
    return phased


def workspace_bytes(device: torch.device) -> int:
    """Bytes that a batch of waveforms may take. A share of the card, not of free memory: batches must not vary."""
    return total_memory(device) // WORKSPACE_DIVISOR if device.type == "cuda" else 2**32


def fit_slots(memory: int, bytes_each: int) -> int:
    """How many slots fit into `memory` bytes: a power of two, at least 1 and at most MAX_SLOTS."""
    size = MAX_SLOTS
    while size > 1 and size * bytes_each > memory:
        size //= 2
    return size


def s3gen_bytes(file: Path, precision: Precision) -> int:
    """Bytes of the flow's and the vocoder's weights on a device, from the header of S3Gen's file.

    The modules that compute conditionals do not count, because they are not kept on the device.
    """
    parts = {"flow.": precision.flow, "mel2wav.": precision.vocoder}
    with safe_open(file, framework="pt") as opened:
        return sum(
            math.prod(opened.get_slice(name).get_shape()) * DTYPES[number_format].itemsize
            for prefix, number_format in parts.items()
            for name in opened.keys()
            if name.startswith(prefix)
        )
