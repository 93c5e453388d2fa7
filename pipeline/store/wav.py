"""WAV files: 16-bit PCM, mono, durable. Knows nothing of rows or runs."""

import hashlib
import io
from pathlib import Path

import numpy as np

from pipeline.data import FULL_SCALE
from pipeline.durable import make_folder, write_durably

HEADER_BYTES = 44  # of a WAV with PCM samples and nothing else


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Round float samples in [-1, 1] to 16 bits; what lies outside is clipped. (num_samples,) int16"""
    return np.clip(np.round(samples * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def to_float(pcm: np.ndarray) -> np.ndarray:
    """The samples as a reader of the file gets them. (num_samples,) float32"""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


def write_wav(path: Path, pcm: np.ndarray, rate: int) -> str:
    """Write `pcm` (num_samples,) int16 durably; returns the SHA-256 of the file's bytes."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, rate, format="WAV", subtype="PCM_16")
    data = buffer.getvalue()
    make_folder(path.parent)
    write_durably(path, lambda temporary: temporary.write_bytes(data))
    return hashlib.sha256(data).hexdigest()
