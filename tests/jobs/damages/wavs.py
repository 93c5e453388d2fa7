"""Damages of WAVs."""

import shutil

from pipeline.audit.finding import Kind

from .damage import FIX, OUT, cut, damage, flip, name, put_folder, wavs


@damage(Kind.LOST)
def a_wav_is_deleted():
    wavs()[1].unlink()
    return ["wavs/001/story-001-00001.wav is gone"]


@damage(Kind.LOST)
def all_wavs_are_deleted():
    there = [f"{name(path)} is gone" for path in sorted(OUT.glob("wavs/*/*.wav"))]
    shutil.rmtree(OUT / "wavs")
    return there


@damage(Kind.LOST)
def a_wav_is_a_link_to_nothing():
    wavs()[1].unlink()
    (OUT / "wavs/001/story-001-00001.wav").symlink_to("nowhere")
    return ["wavs/001/story-001-00001.wav is gone"]


@damage(Kind.LOST, FIX)
def a_wav_is_a_folder():
    put_folder(wavs()[1])
    return ["wavs/001/story-001-00001.wav is a folder"]


@damage(Kind.LOST)
def a_wav_is_a_link_in_a_circle():
    wavs()[1].unlink()
    (OUT / "wavs/001/story-001-00001.wav").symlink_to("story-001-00001.wav")
    return ["wavs/001/story-001-00001.wav cannot be read"]


@damage(Kind.CHANGED)
def a_wav_is_cut():
    cut(wavs()[1])
    return ["wavs/001/story-001-00001.wav has "]


@damage(Kind.CHANGED)
def a_wav_is_empty():
    cut(wavs()[1], 0)
    return ["wavs/001/story-001-00001.wav has 0 bytes where its row says"]


@damage(Kind.CHANGED)
def a_wav_is_longer():
    with open(wavs()[1], "ab") as file:
        file.write(b"\0\0")
    return ["wavs/001/story-001-00001.wav has "]


@damage(Kind.CHANGED)
def a_bit_of_a_wav_is_flipped():
    path = wavs()[1]
    path.write_bytes(flip(path.read_bytes(), 1000))
    return ["wavs/001/story-001-00001.wav has another hash"]


@damage(Kind.CHANGED)
def a_wav_lies_about_its_rate():
    path = wavs()[1]
    path.write_bytes(flip(path.read_bytes(), 24))
    return ["wavs/001/story-001-00001.wav has 1 channel(s) of 16 bits at 24001 Hz"]


@damage(Kind.CHANGED)
def a_wav_is_zeros():
    path = wavs()[1]
    path.write_bytes(bytes(path.stat().st_size))
    return ["wavs/001/story-001-00001.wav is no WAV"]


@damage(Kind.CHANGED)
def a_wav_is_replaced_by_another():
    shutil.copy(wavs()[0], wavs()[1])
    return ["wavs/001/story-001-00001.wav has "]


@damage(Kind.CHANGED)
def two_wavs_trade_places():
    first, second = (path.read_bytes() for path in wavs()[:2])
    wavs()[0].write_bytes(second)
    wavs()[1].write_bytes(first)
    return [f"{name(path)} has " for path in wavs()[:2]]
