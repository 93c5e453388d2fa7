"""Perth's implicit watermark: put on and found again. Knows nothing of engines, checks or files.

`perth` is stock's own, one utterance at a time on the CPU; `perth_batched` computes the same in batches on CUDA.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pipeline.config import WatermarkConfig


class Watermarker(Protocol):
    batch_s: float  # seconds of audio that are best marked at once; 0: one utterance at a time

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        """Each (num_samples,) float32 of any length, marked, in the same shape."""

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float | None]:
        """The detector's confidence in each, 0 to 1; None where there is no watermark to find."""


class Unmarked:
    """`watermark.enabled=false`: explicit, and recorded in every row."""

    batch_s = 0.0

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        return list(samples)

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[None]:
        return [None] * len(samples)


def build_watermarker(options: WatermarkConfig, device: str) -> Watermarker:
    """For an engine on `device`; `UserError` when a watermark is asked for and cannot be had."""
    if not options.enabled:
        return Unmarked()
    from pipeline.watermark.perth import Perth, load_perth

    net = load_perth()
    if not device.startswith("cuda"):
        return Perth(net)
    from pipeline.watermark.perth_batched import BatchedPerth

    return BatchedPerth(net.perth_net, device)
