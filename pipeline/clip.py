"""Reference recordings, read and checked. Knows nothing of engines or of what is computed from a clip."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from pipeline.errors import UserError

SHORTEST_S, LONGEST_S = 1.0, 600.0
LOWEST_RATE, HIGHEST_RATE = 8_000, 384_000  # Hz
# -60 and +40 dBFS: float samples may exceed 1, but unscaled integers as floats are an error.
SILENT_PEAK, LOUDEST_PEAK = 1e-3, 100.0
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's value for a length that the header does not give, as in piped FLAC


@dataclass(frozen=True)
class Clip:
    """A usable reference recording."""

    path: Path
    samples: np.ndarray  # (num_samples,) float32, mono
    rate: int  # Hz
    sha256: str  # of the file's bytes


def read_clip(path: Path) -> Clip:
    """Read a recording; `UserError` if it is no usable reference."""
    name = f"voice.path={path}"
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading it might never end
            raise UserError(f"{name}: is a pipe or a device; give a recording in a file")
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            # As a descriptor: with a Python file, a wrong offset in a header prints tracebacks.
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                return Clip(path, _mono(name, sound), sound.samplerate, sha256)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{name}: {error.error_string}") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error


def _mono(name: str, sound: soundfile.SoundFile) -> np.ndarray:
    """(num_samples,) float32. Reads LONGEST_S and one sample at most, because a header may be wrong."""
    rate = sound.samplerate
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(f"{name}: has {rate} Hz; {LOWEST_RATE} to {HIGHEST_RATE} Hz are needed")
    if sound.channels > 2:
        raise UserError(f"{name}: has {sound.channels} channels; mix it down to mono or stereo")
    if sound.frames == UNKNOWN_FRAMES:
        raise UserError(f"{name}: its header does not tell its length; convert it to WAV")
    longest = int(LONGEST_S * rate)
    samples = sound.read(longest + 1, dtype="float32", always_2d=True)  # (num_samples, channels)
    if len(samples) > longest:
        raise UserError(f"{name}: is longer than {LONGEST_S:.0f} s; cut out ten seconds or so of clear speech")
    if (seconds := len(samples) / rate) < SHORTEST_S:
        raise UserError(f"{name}: {seconds:.2f} s is too short; at least {SHORTEST_S:.0f} s are needed")
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        raise UserError(f"{name}: holds samples that are not numbers")
    if peak > LOUDEST_PEAK:
        raise UserError(f"{name}: holds samples of {peak:.3g} where full scale is 1; save it as 16-bit PCM")
    mono = samples.mean(axis=1)
    if np.abs(mono).max() < SILENT_PEAK:
        raise UserError(f"{name}: is silent")
    return mono
