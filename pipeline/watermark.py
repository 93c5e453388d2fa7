"""Perth's implicit watermark: put on and found again. Knows nothing of engines, checks or files."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.config import WatermarkConfig
from pipeline.errors import UserError

if TYPE_CHECKING:
    from perth.perth_net.perth_net_implicit.perth_watermarker import PerthImplicitWatermarker

HOP = 320  # samples at 32 kHz: Perth drops what does not fill one
SHORTEST = 1028  # samples at 32 kHz: Perth mirrors 1024 of them at each end, and needs more than those
MODEL_RATE = 32_000  # Hz


class Watermarker(Protocol):
    batch_s: float  # seconds of audio that are best marked at once; 0: one utterance at a time

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        """Each (num_samples,) float32 of any length, marked, in the same shape."""

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float | None]:
        """The detector's confidence in each, 0 to 1; None where there is no watermark to find."""


class Perth:
    """The watermarker that stock Chatterbox uses, on the CPU: the reference."""

    batch_s = 0.0

    def __init__(self, net: "PerthImplicitWatermarker") -> None:
        self._net = net

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        return [self._apply(one, rate) for one in samples]

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float]:
        """NaN (nothing audible to look at) counts as not found."""
        return [self._score(one, rate) for one in samples]

    def _apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        import torch

        with torch.inference_mode():  # without it every call leaves 2 to 4 MB behind
            marked = self._net.apply_watermark(ready_to_mark(samples, rate), sample_rate=rate)
        return marked[: len(samples)].astype(np.float32)

    def _score(self, samples: np.ndarray, rate: int) -> float:
        import torch

        with torch.inference_mode():
            score = self._net.get_watermark(ready_to_score(samples, rate), sample_rate=rate, round=False)
        return float(np.nan_to_num(score))


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
    net = load_perth()
    if not device.startswith("cuda"):
        return Perth(net)
    from pipeline.perth import BatchedPerth

    return BatchedPerth(net.perth_net, device)


def load_perth() -> "PerthImplicitWatermarker":
    """Perth itself, with its weights, on the CPU."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it warns, and prints its age
            warnings.simplefilter("ignore")
            import perth

            return perth.PerthImplicitWatermarker()
    except (ImportError, TypeError, OSError, RuntimeError) as error:  # TypeError: without pkg_resources it is None
        raise UserError(
            f"no watermarker: Perth does not load here ({error}); install 'setuptools<81' and resemble-perth, "
            "or set watermark.enabled=false to write unmarked speech"
        ) from error


def ready_to_mark(samples: np.ndarray, rate: int) -> np.ndarray:
    """`samples` with silence behind them, for Perth to cut its whole hops from."""
    return ready_to_score(np.pad(samples, (0, 2 * HOP * rate // MODEL_RATE)), rate)


def ready_to_score(samples: np.ndarray, rate: int) -> np.ndarray:
    """`samples` with silence behind them if they are too short for Perth."""
    missing = SHORTEST * rate // MODEL_RATE - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples
