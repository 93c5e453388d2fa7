"""Reference recordings, read and checked. Knows nothing of engines or of what is computed from a clip."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from pipeline.errors import UserError

SHORTEST_S, LONGEST_S = 1.0, 600.0
LOWEST_RATE, HIGHEST_RATE = 8_000, 384_000  # Hz
# -60 and +40 dBFS: float samples may exceed 1, but unscaled integers as floats are an error.
SILENT_PEAK, LOUDEST_PEAK = 1e-3, 100.0
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's value for a length that the header does not give, as in piped FLAC
# A recording that is cut short is read without an error. Where its header promises more, libsndfile's log says so: of
# the samples' chunk (WAV, RF64, AIFF, AU, CAF) or of the whole file (W64).
SHORTER = re.compile(r"^ *(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
CUT = "is cut short, it was longer when it was written; copy it again"
OPEN_LENGTH = 0x7FFF_0000  # bytes: from here on a length means that a program wrote into a pipe, and promised nothing
LONGEST_PAGE = 65_307  # bytes of an Ogg page
# In the first frame of most MP3s: flags, the last of them for frames and for bytes, and then these.
COUNTS = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", re.DOTALL)


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
        with open(path, "rb", buffering=0) as file:  # libsndfile reads from where the descriptor stands
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if _ends_early(file):
                raise UserError(f"{name}: {CUT}")
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
    try:
        samples = sound.read(longest + 1, dtype="float32", always_2d=True)  # (num_samples, channels)
    except soundfile.LibsndfileError as error:  # FLAC that ends too early, often without a word
        raise UserError(f"{name}: is cut short or damaged; copy it again") from error
    if _is_cut(sound, len(samples), longest + 1):
        raise UserError(f"{name}: {CUT}")
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


def _is_cut(sound: soundfile.SoundFile, num_read: int, most: int) -> bool:
    """Whether the file was longer once, as far as its header tells. `most` samples were asked for."""
    if sound.format == "MP3":  # looked at before; libsndfile guesses its length
        return False
    promised = [(int(size), int(there)) for size, there in SHORTER.findall(sound.extra_info)]
    return any(there < size < OPEN_LENGTH for size, there in promised) or num_read < min(sound.frames, most)


def _ends_early(file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file is not whole, or an MP3 shorter than its first frame says.

    Not all writers mark the last page, and not all MP3s begin with such a frame.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - LONGEST_PAGE))
    tail = file.read()
    file.seek(0)
    head = file.read(10)
    if head.startswith(b"OggS"):
        page = tail[tail.rfind(b"OggS") :]
        segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return len(page) < 27 or len(page) < 27 + page[26] + sum(segments)
    start = 0
    if head.startswith(b"ID3"):
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    file.seek(start)
    found = COUNTS.search(file.read(64))
    return found is not None and length - start < int.from_bytes(found[1], "big")
