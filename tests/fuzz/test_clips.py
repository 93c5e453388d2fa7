"""100 broken recordings."""

import io
import os
import struct
from functools import cache
from random import Random

import numpy as np
import pytest
import soundfile

from jobs.catalogue import CONF
from pipeline.clip import read_clip
from pipeline.errors import UserError

from .conftest import damaged, one_line

pytestmark = pytest.mark.filterwarnings("error")  # of NumPy, about numbers that are none

TONE = (0.3 * np.sin(np.arange(24_000) * 0.05)).astype(np.float32)  # 1.5 s at 16 kHz
FORMATS = [
    *[("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM")],
    *[("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16")],
    *[("OGG", "VORBIS"), ("OGG", "OPUS"), ("AU", "PCM_16"), ("CAF", "PCM_16")],
]
WAV_HEADER = {4: "I", 16: "I", 20: "H", 22: "H", 24: "I", 28: "I", 32: "H", 34: "H", 40: "I"}  # its numbers, by offset
LIES = [0, 1, 2, 3, 255, 7_999, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
NO_SOUND = [np.nan, np.inf, -np.inf, 1e-45, 1e-4, 101.0, 1e20, 3e38]


@cache
def recording(container: str, subtype: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([TONE] * channels, axis=1), 16_000, format=container, subtype=subtype)
    return file.getvalue()


@cache
def narrator() -> bytes:
    return (CONF / "voice" / "narrator.flac").read_bytes()


def wav_that_lies(rng: Random) -> bytes:
    """Rates, channels, widths and lengths that are not so, up to 4 GiB in 48 kB."""
    wav = bytearray(recording("WAV", "PCM_16", rng.choice([1, 2])))
    for at in rng.sample(list(WAV_HEADER), rng.choice([1, 1, 1, 2, 3])):
        size = struct.calcsize(WAV_HEADER[at])
        struct.pack_into(f"<{WAV_HEADER[at]}", wav, at, rng.choice(LIES) % 256**size)
    return bytes(wav)


def flac_that_lies(rng: Random) -> bytes:
    """20 bits of rate, 3 of channels, 5 of sample width and 36 of length, at byte 18. A length of 0 is legal."""
    lie = rng.choice([0, 1, 2**36 - 1, rng.getrandbits(36), rng.getrandbits(64), 0xFFFFF << 44])
    before = int.from_bytes(narrator()[18:26], "big")
    both = (before >> 36 << 36 | lie) if lie < 2**36 else lie
    return narrator()[:18] + both.to_bytes(8, "big") + narrator()[26:]


def floats_that_are_no_sound(rng: Random) -> bytes:
    samples = np.stack([TONE, TONE], axis=1)
    samples[rng.randrange(len(samples))] = [rng.choice(NO_SOUND), rng.choice(NO_SOUND)]
    samples *= np.float32(rng.choice([1, 1, 0, 1e-5]))
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()


def damaged_header(rng: Random) -> bytes:
    return damaged(recording(*rng.choice(FORMATS)), rng, within=100)


def damaged_anywhere(rng: Random) -> bytes:
    return damaged(rng.choice([narrator(), recording(*rng.choice(FORMATS))]), rng)


MAKERS = [wav_that_lies, wav_that_lies, flac_that_lies, floats_that_are_no_sound, damaged_header, damaged_anywhere]


def broken_recording(number: int) -> bytes:
    rng = Random(f"recording {number}")
    with np.errstate(all="ignore"):
        return MAKERS[number % len(MAKERS)](rng)


@pytest.mark.parametrize("number", range(100))
def test_a_broken_recording_is_heard_or_refused_in_one_line(number, tmp_path, capfd):
    path = tmp_path / "clip.wav"
    path.write_bytes(broken_recording(number))
    try:
        clip = read_clip(path)
    except UserError as error:
        assert str(error).startswith(f"voice.path={path}: ") and one_line(error)
    else:
        assert 1 <= len(clip.samples) / clip.rate <= 600 and clip.samples.dtype == np.float32
        assert 1e-3 <= np.abs(clip.samples).max() <= 100
    assert capfd.readouterr().err == ""  # libraries print tracebacks, too


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "folder", "loop", "x" * 5000, "''"])
def test_what_is_no_file_is_no_recording(name, job, story, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    before = os.listdir(tmp_path)
    ended = job("generate", "book=story.txt", "engine=espeak", f"voice.path={name}")
    assert ended.code == 2 and ended.err.startswith("error: voice.path=") and one_line(ended.err.rstrip("\n"))
    assert os.listdir(tmp_path) == before


def test_a_recording_whose_header_leaves_its_length_open_is_refused_with_the_way_out(tmp_path):
    """As a program writes it that pipes FLAC."""
    path = tmp_path / "piped.flac"
    path.write_bytes(narrator()[:21] + bytes([narrator()[21] & 0xF0]) + bytes(4) + narrator()[26:])
    with pytest.raises(UserError, match="does not tell its length; convert it to WAV"):
        read_clip(path)


def test_a_recording_that_is_a_whole_book_is_refused(tmp_path):
    soundfile.write(tmp_path / "book.flac", np.tile(TONE, 8000 * 601 // len(TONE) + 1), 8_000)
    with pytest.raises(UserError, match="is longer than 600 s"):
        read_clip(tmp_path / "book.flac")
