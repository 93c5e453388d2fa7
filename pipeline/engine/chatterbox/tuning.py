"""Batch shapes for each kind of device: how much is computed together, and to which sizes it is padded.

`memory` limits them by the memory there is. Knows nothing of weights or requests.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tuning:
    """The defaults are for a CPU, which gains nothing from padding or from batches of waveforms."""

    text_group: int = 1  # texts that T3 prefills together; a kernel launch costs more than the padding
    text_multiple: int = 1  # T3 pads texts to a multiple of this many tokens
    encoder_multiple: int = 1  # S3Gen's encoder pads rows to a multiple of this, to align attention
    captured_frames: tuple[int, ...] = (1024, 4096, 16384, 32768)  # pack sizes of the flow as CUDA graphs
    plain_frames: tuple[int, ...] = (1,)  # pack sizes of the flow without graphs
    vocoder_frames: int = 1  # mel frames of a vocoder batch, with padding
    vocoder_step: int | None = None  # least step between its padded lengths, in frames; a new shape costs 50 ms
    batches_ahead: int = 0  # waveform batches queued before the host waits for one; 34 MB of samples each


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
