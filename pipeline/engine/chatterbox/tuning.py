"""Batch shapes that suit each kind of device: how much is computed together, and to what it is padded.

What memory allows is decided in `memory`. Knows nothing of weights or requests.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tuning:
    """The defaults are those of a CPU, which gains nothing from padding or from batches of waveforms."""

    text_group: int = 1  # prompts whose texts T3 reads together; starting a kernel costs more than padding wastes
    text_multiple: int = 1  # their texts are padded to a multiple of so many tokens
    encoder_multiple: int = 1  # S3Gen's encoder pads rows to a multiple of so many tokens: attention wants alignment
    captured_frames: tuple[int, ...] = (1024, 4096, 16384, 32768)  # sizes of a flow pack that is a CUDA graph
    plain_frames: tuple[int, ...] = (1,)  # sizes of a flow pack that is not
    vocoder_frames: int = 1  # mel frames that the vocoder computes together, padding included
    vocoder_step: int | None = None  # frames between its padded lengths; a new shape costs CUDA 50 ms
    batches_ahead: int = 0  # batches of waveforms given to the device before the host waits; 34 MB of samples each


TUNING = {
    "cuda": Tuning(
        text_group=16,
        text_multiple=32,
        encoder_multiple=32,
        plain_frames=(1024, 4096, 8192),
        vocoder_frames=8192,
        vocoder_step=32,
        batches_ahead=8,
    ),
}


def get_tuning(device: torch.device) -> Tuning:
    return TUNING.get(device.type, Tuning())
