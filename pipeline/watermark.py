"""Perth's implicit watermark: put on and found again. Knows nothing of engines, checks or files."""

import contextlib
import io
import warnings
from typing import Protocol

import numpy as np

from pipeline.config import WatermarkConfig
from pipeline.errors import UserError

HOP = 320  # samples at 32 kHz: Perth drops what does not fill one
MODEL_RATE = 32_000  # Hz


class Watermarker(Protocol):
    def apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Same shape, float32."""

    def score(self, samples: np.ndarray, rate: int) -> float | None:
        """The detector's confidence, 0 to 1; None where there is no watermark to find."""


class Perth:
    """The watermarker that stock Chatterbox uses, on the CPU."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it warns, and prints its age
                warnings.simplefilter("ignore")
                import perth
                import torch

                self._net = perth.PerthImplicitWatermarker()
                self._inference = torch.inference_mode  # without it every call leaves 2 to 4 MB behind
        except (ImportError, TypeError, OSError, RuntimeError) as error:  # TypeError: without pkg_resources it is None
            raise UserError(
                f"no watermarker: Perth does not load here ({error}); install 'setuptools<81' and resemble-perth, "
                "or set watermark.enabled=false to write unmarked speech"
            ) from error

    def apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        pad = 2 * HOP * rate // MODEL_RATE  # Perth cuts the end to whole hops: give it silence to cut
        padded = np.concatenate((samples, np.zeros(pad, np.float32)))
        with self._inference():
            marked = self._net.apply_watermark(padded, sample_rate=rate)
        return marked[: len(samples)].astype(np.float32)

    def score(self, samples: np.ndarray, rate: int) -> float:
        """NaN (nothing audible to look at) counts as not found."""
        with self._inference():
            return float(np.nan_to_num(self._net.get_watermark(samples, sample_rate=rate, round=False)))


class Unmarked:
    """`watermark.enabled=false`: explicit, and recorded in every row."""

    def apply(self, samples: np.ndarray, rate: int) -> np.ndarray:
        return samples

    def score(self, samples: np.ndarray, rate: int) -> None:
        return None


def build_watermarker(options: WatermarkConfig) -> Watermarker:
    """`UserError` when a watermark is asked for and cannot be had."""
    return Perth() if options.enabled else Unmarked()
