"""Perth's implicit watermark: to mark speech, and to score marks. Knows nothing of engines, checks or files.

`perth` is stock's own, one utterance at a time on the CPU. `perth_batched` computes the same in batches on CUDA.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.config import WatermarkConfig


class Watermarker(Protocol):
    batch_s: float  # seconds of audio that are best marked together; 0: one utterance at a time

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        """Marked copies of the samples, (num_samples,) float32 each, of any length; rate in Hz."""

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float | None]:
        """The detector's confidence in a mark in each, 0 to 1. None: marks are disabled."""


class Unmarked:
    """`watermark.enabled=false`: explicit, and recorded in every row."""

    batch_s = 0.0

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        return list(samples)

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[None]:
        return [None] * len(samples)


def build_watermarker(options: WatermarkConfig, device: str) -> Watermarker:
    """A watermarker for speech of an engine on `device`. `UserError` if it is enabled and Perth does not load."""
    if not options.enabled:
        return Unmarked()
    if not device.startswith("cuda"):
        from pipeline.watermark.perth import Perth, load_perth

        return Perth(load_perth())
    from pipeline.watermark.perth_batched import BatchedPerth
    from pipeline.watermark.perth_weights import read_perth

    return BatchedPerth(read_perth(), device)
