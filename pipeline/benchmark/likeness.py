"""Distances between two renderings of the same tokens: of their mels and of their speaker embeddings.

Knows samples and stock's voice encoder, and nothing of policies or files.
"""

import math
from collections.abc import Iterable, Sequence

import librosa
import numpy as np
import torch
from chatterbox.models.voice_encoder import VoiceEncoder
from torch import Tensor

from pipeline.engine.chatterbox.voice import T3_RATE

WINDOW, HOP, BINS, HIGHEST_HZ = 1920, 480, 80, 8000  # as S3Gen's own mels at 24 kHz: windows of 80 ms, every 20 ms
FLOOR_DB = -60.0  # relative to the reference's loudest bin; softer bins are inaudible
Pair = tuple[np.ndarray, np.ndarray]  # the reference's samples and another's, (num_samples,) float32 each


def flow_distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """sqrt(mean((a - b)^2)) in dB, over all bins and frames; None without pairs, or if the mels are not finite.

    a and b are the flow's mels: natural logarithms of magnitudes. The vocoder's samples would differ by more, even
    for nearly equal mels, because a tiny difference of pitch accumulates to another phase.
    """
    if not pairs:
        return None
    differences = torch.cat([(reference - other).flatten() for reference, other in pairs])
    found = 20 / math.log(10) * differences.double().square().mean().sqrt().item()
    return found if math.isfinite(found) else None


def mel_distance(pairs: Iterable[Pair], rate: int) -> float:
    """sqrt(mean((20 log10 max(a, f) - 20 log10 max(b, f))^2)) in dB, over all bins and frames of all pairs.

    a and b are the mel magnitudes of the reference and of the other; f is FLOOR_DB below the largest a of the pair.
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


def embed_speakers(encoder: VoiceEncoder, spoken: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """Speaker embeddings. (len(spoken), 256) float64, rows of norm 1; all samples must be finite."""
    resampled = [librosa.resample(samples, orig_sr=rate, target_sr=T3_RATE) for samples in spoken]
    with torch.inference_mode():
        found = encoder.embeds_from_wavs(resampled, sample_rate=T3_RATE).astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
