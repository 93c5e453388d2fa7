"""Reference recordings: which are accepted, and that their conditionals are computed once."""

import hashlib
import logging

import numpy as np
import pytest
import soundfile
import torch

from pipeline.clip import read_clip
from pipeline.engine.chatterbox import voice
from pipeline.engine.chatterbox.voice import Conditionals, compute_or_read
from pipeline.errors import UserError

TONE = (0.3 * np.sin(np.arange(48_000) * 0.05)).astype(np.float32)  # 2 s at 24 kHz


@pytest.fixture
def write(tmp_path):
    def make(name: str, samples: np.ndarray = TONE, rate: int = 24_000, **options):
        soundfile.write(tmp_path / name, samples, rate, **options)
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_clip_is_read_whatever_its_format_and_known_by_its_bytes(name, write):
    path = write(name)
    clip = read_clip(path)
    assert clip.rate == 24_000 and abs(len(clip.samples) - len(TONE)) < 3000 and clip.samples.dtype == np.float32
    assert clip.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_stereo_becomes_the_mean_of_its_channels(write):
    path = write("a.wav", np.stack([TONE, -0.5 * TONE], axis=1), 44_100, subtype="FLOAT")
    assert np.allclose(read_clip(path).samples, 0.25 * TONE) and read_clip(path).rate == 44_100


def test_a_clip_that_no_voice_can_be_made_of_is_a_user_error(write, tmp_path):
    (tmp_path / "text.wav").write_text("no audio at all")
    (tmp_path / "empty.wav").write_bytes(b"")
    broken = TONE.copy()
    broken[7] = np.nan
    for path, reason in {
        tmp_path / "absent.wav": "No such file",
        tmp_path: "Is a directory",
        tmp_path / "text.wav": "Format not recognised",
        tmp_path / "empty.wav": "Format not recognised",
        write("short.wav", TONE[:23_999]): "too short",
        write("none.wav", TONE[:0]): "too short",
        write("silent.wav", 1e-4 * TONE): "is silent",
        write("broken.wav", broken, subtype="FLOAT"): "not numbers",
    }.items():
        with pytest.raises(UserError) as error:
            read_clip(path)
        assert str(error.value).startswith(f"voice.path={path}: ") and reason in str(error.value)


FORMATS = [
    *[("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16")],
    *[("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("FLAC", "PCM_16")],
    *[("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
]


@pytest.mark.parametrize("container, subtype", FORMATS)
def test_a_recording_that_is_cut_short_is_a_user_error(container, subtype, write):
    path = write("long", np.tile(TONE, 9), format=container, subtype=subtype)
    whole = path.read_bytes()
    assert len(read_clip(path).samples) > 430_000
    for share in (0.99, 0.8, 0.3):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r": is cut short[^\n]*; copy it again$|malformed"):
            read_clip(path)


@pytest.mark.parametrize("length", [0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_that_came_through_a_pipe_promises_no_length(length, write):
    path = write("piped.wav")
    data = path.read_bytes()
    path.write_bytes(data[:40] + length.to_bytes(4, "little") + data[44:])
    assert len(read_clip(path).samples) == len(TONE)


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\0\x7f\x76" + bytes(16_374)])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_that_does_not_say_its_length_is_whole_as_it_is(tag, mode, write):
    path = write("a.mp3", np.tile(TONE, 9), bitrate_mode=mode, compression_level=0.3)
    data = path.read_bytes()
    first = data.index(data[:2], 4)  # the frame behind the one that counts the others
    path.write_bytes(tag + data[first:])
    assert len(read_clip(path).samples) > 24_000


@pytest.mark.parametrize("more", [b"TAG" + bytes(125), bytes(3000)])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.ogg"])
def test_what_stands_behind_a_recording_does_not_matter(name, more, write):
    path = write(name)
    path.write_bytes(path.read_bytes() + more)
    assert abs(len(read_clip(path).samples) - len(TONE)) < 3000


@pytest.fixture
def computed(monkeypatch):
    """Replaces the computation; lists what it was asked for."""
    calls = []

    def compute(clip, s3gen, voice_encoder, prompt_seconds, precision):
        calls.append((clip.sha256, prompt_seconds, precision))
        return Conditionals(
            speaker_emb=torch.rand(1, 256),
            cond_prompt_speech_tokens=torch.randint(6561, (1, 150)),
            prompt_token=torch.randint(6561, (1, 250)),
            prompt_token_len=torch.tensor([250]),
            prompt_feat=torch.rand(1, 500, 80),
            embedding=torch.rand(1, 192),
        )

    monkeypatch.setattr(voice, "compute", compute)
    return calls


def get(clip, cache, **changes) -> Conditionals:
    options = dict(revision="abc", prompt_seconds=10.0, precision="fp32", cache=cache) | changes
    return compute_or_read(clip, lambda: (None, None), **options)


def same(a: Conditionals, b: Conditionals) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_conditionals_are_computed_once_for_a_voice_in_this_run_and_the_next(computed, write, tmp_path):
    clip = read_clip(write("a.wav"))
    first = get(clip, tmp_path)
    copy = tmp_path / "renamed.wav"
    copy.write_bytes(clip.path.read_bytes())
    assert same(first, get(read_clip(copy), tmp_path, prompt_seconds=10)) and len(computed) == 1
    assert [path.suffix for path in (tmp_path / "voices").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("changed", [dict(revision="abd"), dict(prompt_seconds=9.0), dict(precision="tf32")])
def test_what_changes_conditionals_computes_them_anew(changed, computed, write, tmp_path):
    clip = read_clip(write("a.wav"))
    assert not same(get(clip, tmp_path), get(clip, tmp_path, **changed)) and len(computed) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:1000], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_cache_file_is_computed_again_and_mended(damage, computed, write, tmp_path, caplog):
    clip = read_clip(write("a.wav"))
    get(clip, tmp_path)
    (file,) = (tmp_path / "voices").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = get(clip, tmp_path)
    assert len(computed) == 2 and f"{file} is damaged" in caplog.text
    assert same(again, get(clip, tmp_path)) and len(computed) == 2
