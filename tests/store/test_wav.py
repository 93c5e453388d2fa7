import hashlib

import numpy as np
import pytest
import soundfile

from pipeline.durable import write_durably
from pipeline.store.wav import to_float, to_pcm16, write_wav


def test_samples_survive_the_file_bit_for_bit(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32768, 24_000, dtype=np.int16)
    sha256 = write_wav(tmp_path / "new" / "a.wav", pcm, 24_000)
    read, rate = soundfile.read(tmp_path / "new" / "a.wav", dtype="int16")
    info = soundfile.info(tmp_path / "new" / "a.wav")
    assert rate == 24_000 and info.channels == 1 and info.subtype == "PCM_16"
    assert np.array_equal(read, pcm)
    assert sha256 == hashlib.sha256((tmp_path / "new" / "a.wav").read_bytes()).hexdigest()


def test_sixteen_bits_are_rounded_and_never_wrap_round():
    samples = np.array([-2.0, -1.0, -0.5, 0.0, 1 / 65536 * 1.01, 0.99999, 1.0, 2.0], np.float32)
    assert to_pcm16(samples).tolist() == [-32768, -32768, -16384, 0, 1, 32767, 32767, 32767]


def test_samples_are_heard_as_a_reader_of_the_file_hears_them(tmp_path):
    pcm = np.array([-32768, -1, 0, 1, 32767], np.int16)
    write_wav(tmp_path / "a.wav", pcm, 24_000)
    assert np.array_equal(to_float(pcm), soundfile.read(tmp_path / "a.wav", dtype="float32")[0])


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def half(temporary):
        temporary.write_bytes(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_durably(path, half)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
