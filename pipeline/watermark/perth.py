"""The reference watermarker: stock Chatterbox's own, on the CPU. Knows nothing of engines, checks or files."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import UserError

if TYPE_CHECKING:
    from perth.perth_net.perth_net_implicit.perth_watermarker import PerthImplicitWatermarker

HOP = 320  # samples at 32 kHz; Perth drops a rest that does not fill a hop
SHORTEST = 1028  # samples at 32 kHz; Perth mirrors 1024 at each end, and needs more than it mirrors
MODEL_RATE = 32_000  # Hz


class Perth:
    """One utterance at a time; see `pipeline.watermark.Watermarker`."""

    batch_s = 0.0

    def __init__(self, net: "PerthImplicitWatermarker") -> None:
        self._net = net

    def apply(self, samples: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
        return [self._apply(one, rate) for one in samples]

    def score(self, samples: Sequence[np.ndarray], rate: int) -> list[float]:
        """A score of NaN (no audible frame) becomes 0."""
        return [self._score(one, rate) for one in samples]

    def _apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        import torch

        with torch.inference_mode():  # else every call leaks 2 to 4 MB
            marked = self._net.apply_watermark(pad_to_mark(samples, rate), sample_rate=rate)
        return marked[: len(samples)].astype(np.float32)

    def _score(self, samples: np.ndarray, rate: int) -> float:
        import torch

        with torch.inference_mode():
            score = self._net.get_watermark(pad_to_score(samples, rate), sample_rate=rate, round=False)
        return float(np.nan_to_num(score))


def load_perth() -> "PerthImplicitWatermarker":
    """Perth itself, with its weights, on the CPU. `UserError` if it does not load."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # Perth warns and prints
            warnings.simplefilter("ignore")
            import perth

            return perth.PerthImplicitWatermarker()
    except (ImportError, TypeError, OSError, RuntimeError) as error:  # TypeError: None, if pkg_resources is missing
        raise UserError(
            f"no watermarker: Perth does not load here ({error}); install 'setuptools<81' and resemble-perth, "
            "or set watermark.enabled=false to write unmarked speech"
        ) from error


def pad_to_mark(samples: np.ndarray, rate: int) -> np.ndarray:
    """`samples` with silence behind them, so that what Perth drops is silence."""
    return pad_to_score(np.pad(samples, (0, 2 * HOP * rate // MODEL_RATE)), rate)


def pad_to_score(samples: np.ndarray, rate: int) -> np.ndarray:
    """`samples`, with silence behind them if they are too short for Perth."""
    missing = SHORTEST * rate // MODEL_RATE - len(samples)
    return np.pad(samples, (0, missing)) if missing > 0 else samples
