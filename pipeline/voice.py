"""Voices: reading a reference recording, and the conditionals computed from it once and kept on disk.

Reading imports no torch. Knows nothing of engines, utterances or exaggeration, which conditionals do not depend on.
"""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.voice_encoder import VoiceEncoder

log = logging.getLogger(__name__)

SHORTEST_S = 1.0
SILENT_PEAK = 1e-3  # -60 dBFS
ENCODER_PROMPT_S = 6.0  # what T3 hears of a recording at most
T3_RATE, S3GEN_RATE = 16_000, 24_000  # Hz


@dataclass(frozen=True)
class Clip:
    """A reference recording that can be used."""

    path: Path
    samples: np.ndarray  # (num_samples,) float32, mono
    rate: int  # Hz
    sha256: str  # of the file's bytes


@dataclass(frozen=True)
class Conditionals:
    """What the model knows of a voice, by stock's names."""

    speaker_emb: "torch.Tensor"  # (1, 256)
    cond_prompt_speech_tokens: "torch.Tensor"  # (1, up to 150) int64
    prompt_token: "torch.Tensor"  # (1, T) int64, 25 a second
    prompt_token_len: "torch.Tensor"  # (1,) int64
    prompt_feat: "torch.Tensor"  # (1, 2T, 80)
    embedding: "torch.Tensor"  # (1, 192)

    def to(self, device: "torch.device | str") -> "Conditionals":
        return Conditionals(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def gen(self) -> dict[str, "torch.Tensor | None"]:
        """What S3Gen takes as `ref_dict`, which it changes."""
        names = ("prompt_token", "prompt_token_len", "prompt_feat", "embedding")
        return {name: getattr(self, name) for name in names} | dict(prompt_feat_len=None)


def read_clip(path: Path) -> Clip:
    """`UserError` for what no voice can be made of."""
    try:
        data = path.read_bytes()
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)  # (num_samples, channels)
    except soundfile.LibsndfileError as error:
        raise UserError(f"voice.path={path}: {error.error_string}") from error
    except OSError as error:
        raise UserError(f"voice.path={path}: {error.strerror}") from error
    samples = samples.mean(axis=1)
    if not np.isfinite(samples).all():
        raise UserError(f"voice.path={path}: holds samples that are not numbers")
    if (seconds := len(samples) / rate) < SHORTEST_S:
        raise UserError(f"voice.path={path}: {seconds:.2f} s is too short; at least {SHORTEST_S:.0f} s are needed")
    if np.abs(samples).max() < SILENT_PEAK:
        raise UserError(f"voice.path={path}: is silent")
    return Clip(path, samples, rate, hashlib.sha256(data).hexdigest())


def conditionals(
    clip: Clip,
    load: Callable[[], "tuple[S3Gen, VoiceEncoder]"],
    *,
    revision: str,
    prompt_seconds: float,
    precision: str,
    cache: Path,
) -> Conditionals:
    """The clip's conditionals from `cache`, or computed by the modules that `load` returns, and then kept there."""
    key = hashlib.sha256(repr((clip.sha256, revision, float(prompt_seconds), precision)).encode()).hexdigest()
    file = cache / "voices" / f"{key}.safetensors"
    found = _read(file)
    if found is None:
        log.info("computing the conditionals of %s, kept as %s", clip.path, file)
        found = compute(clip, *load(), prompt_seconds, precision)
        _write(found, file)
    return found


def compute(
    clip: Clip, s3gen: "S3Gen", voice_encoder: "VoiceEncoder", prompt_seconds: float, precision: str
) -> Conditionals:
    """As stock's `prepare_conditionals`, which hears 10 s."""
    import librosa
    import torch

    from pipeline.engine.chatterbox.precision import float32_math

    wav_24k = librosa.resample(clip.samples, orig_sr=clip.rate, target_sr=S3GEN_RATE)
    wav_16k = librosa.resample(wav_24k, orig_sr=S3GEN_RATE, target_sr=T3_RATE)
    encoder_prompt = wav_16k[: int(min(ENCODER_PROMPT_S, prompt_seconds) * T3_RATE)]
    with torch.inference_mode(), float32_math(precision):
        gen = s3gen.embed_ref(wav_24k[: int(prompt_seconds * S3GEN_RATE)], S3GEN_RATE, device=s3gen.device)
        tokens, _ = s3gen.tokenizer([encoder_prompt], max_len=150)  # (1, up to 150)
        speaker = torch.from_numpy(voice_encoder.embeds_from_wavs([wav_16k], sample_rate=T3_RATE))  # (1, 256)
    gen.pop("prompt_feat_len")  # always None
    return Conditionals(speaker_emb=speaker, cond_prompt_speech_tokens=tokens, **gen).to("cpu")


def _read(file: Path) -> Conditionals | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.exists():
        return None
    try:
        return Conditionals(**load_file(file))
    except (SafetensorError, TypeError, OSError) as error:
        log.warning("%s is damaged and computed again: %s", file, error)
        return None


def _write(made: Conditionals, file: Path) -> None:
    """The file appears whole or not at all, also beside other processes that compute the same voice."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in vars(made).items()}, draft)
        os.replace(draft, file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"engine.cache={file.parent.parent}: cannot be written ({error})") from error
