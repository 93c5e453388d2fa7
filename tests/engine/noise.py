"""Stock with our noise: the same tokens then have the same waveform."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from chatterbox.models.s3gen import hifigan
from torch import Tensor

from pipeline.device.random import normal, uniform
from pipeline.engine.chatterbox.s3gen.streams import FLOW, PHASES, SOURCE
from pipeline.engine.chatterbox.s3gen.vocoder_weights import VocoderWeights


@contextmanager
def stocks_noise(weights: VocoderWeights, seed: int) -> Iterator[None]:
    """Let stock draw our noise of `seed`: the flow's start, the harmonics' phases, the source's noise.

    We draw one normal number a sample where stock draws nine, one for each harmonic, and uses their weighted sum only.
    """
    one = torch.tensor([seed])
    phases = F.pad(math.pi * (2 * uniform(one, PHASES, 8) - 1), (1, 0))[..., None]  # (1, 9, 1)
    share = weights.harmonics / weights.harmonics.norm()

    def draw(like: Tensor) -> Tensor:
        _, channels, length = like.shape
        if channels == 80:
            return normal(one, FLOW, 80 * length).view(1, length, 80).transpose(1, 2).contiguous()
        return share[:, None] * normal(one, SOURCE, length)[:, None] if channels == 9 else torch.zeros_like(like)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hifigan.Uniform, "sample", lambda self, sample_shape: phases.clone())
        patch.setattr(torch, "randn_like", draw)
        yield
