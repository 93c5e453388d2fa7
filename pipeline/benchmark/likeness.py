"""How far two renderings of the same tokens are apart: in their spectra, and in whom they sound like.

Knows samples and stock's voice encoder; nothing of engines, policies or files.
"""

import math
from collections.abc import Iterable, Sequence

import librosa
import numpy as np
import torch
from chatterbox.models.voice_encoder import VoiceEncoder
from torch import Tensor

from pipeline.engine.chatterbox.voice import T3_RATE

WINDOW, HOP, BINS, HIGHEST_HZ = 1920, 480, 80, 8000  # at 24 kHz, as S3Gen's own mels: 80 ms, every 20 ms
FLOOR_DB = -60.0  # against the reference's loudest bin; nobody hears what is softer
Pair = tuple[np.ndarray, np.ndarray]  # the reference's samples and another's, (num_samples,) float32 each


def flow_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """sqrt(mean((a - b)^2)) in dB, over all bins and frames; None where one is not finite, or there is none.

    a and b are what the flow has made for the vocoder: natural logarithms of magnitudes. What a vocoder makes of equal
    mels differs by more, since the least difference of pitch adds up to another phase.
    """
    if not pairs:
        return None
    differences = torch.cat([(reference - other).flatten() for reference, other in pairs])
    found = 20 / math.log(10) * differences.double().square().mean().sqrt().item()
    return found if math.isfinite(found) else None


def mel_distance(pairs: Iterable[Pair], rate: int) -> float:
    """sqrt(mean((20 log10 max(a, f) - 20 log10 max(b, f))^2)) in dB, over all bins and frames of all pairs.

    a and b are the magnitudes of the reference's mels and the other's, f is FLOOR_DB below the largest a of a pair.
    """
    total, count = 0.0, 0
    for reference, other in pairs:
        a, b = _mels(reference, rate), _mels(other, rate)
        floor = max(a.max() * 10 ** (FLOOR_DB / 20), np.finfo(np.float32).tiny)
        difference = 20 * np.log10(np.maximum(a, floor) / np.maximum(b, floor))
        total, count = total + float(np.square(difference).sum()), count + difference.size
    return math.sqrt(total / count)


def _mels(samples: np.ndarray, rate: int) -> np.ndarray:
    """(80, frames) float64"""
    return librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=rate,
        n_fft=WINDOW,
        hop_length=HOP,
        n_mels=BINS,
        fmax=HIGHEST_HZ,
        power=1.0,
    )


def embeddings(encoder: VoiceEncoder, spoken: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """Whom each of `spoken`, all finite, sounds like. (len(spoken), 256) float64, rows of length 1"""
    heard = [librosa.resample(samples, orig_sr=rate, target_sr=T3_RATE) for samples in spoken]
    with torch.inference_mode():
        found = encoder.embeds_from_wavs(heard, sample_rate=T3_RATE).astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
