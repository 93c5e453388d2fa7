"""Voices: reading a reference recording, and the conditionals computed from it once and kept on disk.

Reading imports no torch. Knows nothing of engines, utterances or exaggeration, which conditionals do not depend on.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
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

SHORTEST_S, LONGEST_S = 1.0, 600.0
LOWEST_RATE, HIGHEST_RATE = 8_000, 384_000  # Hz
SILENT_PEAK, LOUDEST_PEAK = 1e-3, 100.0  # -60 and +40 dBFS: floats may exceed full scale, integers in floats are a bug
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's word for a length that the header leaves open, as in piped FLAC
ENCODER_PROMPT_S = 6.0  # what T3 hears of a recording at most
T3_RATE, S3GEN_RATE = 16_000, 24_000  # Hz

SPEECH_TOKENS = 6561  # ids from here on are no speech
TOKENS, FRAMES = range(1, 1001), range(2, 2002)  # of a prompt: up to 40 s, and stock makes 10
ID_SHAPES = dict(cond_prompt_speech_tokens=(1, TOKENS), prompt_token=(1, TOKENS), prompt_token_len=(1,))
NUMBER_SHAPES = dict(speaker_emb=(1, 256), prompt_feat=(1, FRAMES, 80), embedding=(1, 192))


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


def fault(voice: Conditionals) -> str:
    """Why the model cannot speak with these tensors, "" if it can. Values are read only where the shape is small."""
    for name, shape in (ID_SHAPES | NUMBER_SHAPES).items():
        tensor = getattr(voice, name)
        kinds = ("torch.int64", "torch.int32") if name in ID_SHAPES else ("torch.float32",)
        sizes = getattr(tensor, "shape", type(tensor).__name__)
        if len(sizes) != len(shape) or not all(map(_is_size, sizes, shape)):
            wanted = ", ".join(f"{size[0]} to {size[-1]}" if isinstance(size, range) else str(size) for size in shape)
            return f"{name} is {sizes} where the model has ({wanted})"
        if str(tensor.dtype) not in kinds:
            return f"{name} is {tensor.dtype} where the model has {kinds[0]}"
        if name in NUMBER_SHAPES and not tensor.isfinite().all():
            return f"{name} holds what is not a number"
        if name in ID_SHAPES and not ((0 <= tensor) & (tensor < SPEECH_TOKENS)).all():
            return f"{name} has ids that are no speech tokens"
    tokens, told, frames = voice.prompt_token.shape[1], int(voice.prompt_token_len), voice.prompt_feat.shape[1]
    if told != tokens or abs(frames - 2 * tokens) > 2:  # stock rounds in several places
        return f"prompt_token has {tokens} tokens, prompt_token_len says {told}, prompt_feat is of {frames // 2}"
    return ""


def _is_size(size: int, wanted: int | range) -> bool:
    return size in wanted if isinstance(wanted, range) else size == wanted


def read_clip(path: Path) -> Clip:
    """`UserError` for what no voice can be made of."""
    name = f"voice.path={path}"
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading might never end
            raise UserError(f"{name}: is a pipe or a device; give a recording in a file")
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            # By its descriptor: a wrong offset in a header would make a Python file print tracebacks.
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                return Clip(path, _mono(name, sound), sound.samplerate, sha256)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{name}: {error.error_string}") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}") from error


def _mono(name: str, sound: soundfile.SoundFile) -> np.ndarray:
    """The samples (num_samples,) float32; never more memory than LONGEST_S takes, whatever the header says."""
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


def conditionals(
    clip: Clip,
    load: Callable[[], "tuple[S3Gen, VoiceEncoder]"],
    *,
    revision: str,
    prompt_seconds: float,
    precision: str,
    cache: Path,
) -> Conditionals:
    """The clip's conditionals from `cache`, or computed by the modules that `load` returns, and then kept there.

    FloatingPointError where half precision was too little.
    """
    key = hashlib.sha256(repr((clip.sha256, revision, float(prompt_seconds), precision)).encode()).hexdigest()
    file = cache / "voices" / f"{key}.safetensors"
    found = _read(file)
    if found is None:
        log.info("computing the conditionals of %s, kept as %s", clip.path, file)
        found = compute(clip, *load(), prompt_seconds, precision)
        if precision in ("bf16", "fp16") and not found.speaker_emb.isfinite().all():
            raise FloatingPointError(f"{clip.path}: its embedding in {precision} is no number")
        if wrong := fault(found):
            raise UserError(f"{clip.path}: no voice comes of it ({wrong}); try another recording")
        _write(found, file)
    return found


def compute(
    clip: Clip, s3gen: "S3Gen", voice_encoder: "VoiceEncoder", prompt_seconds: float, precision: str
) -> Conditionals:
    """As stock's `prepare_conditionals`, which hears 10 s.

    In half precision that is the voice encoder's network alone: speech tokens and x-vector are stock's, in FP32.
    """
    import librosa
    import torch

    from pipeline.engine.chatterbox.precision import WEIGHTS, float32_math

    dtype = WEIGHTS[precision]
    voice_encoder.to(dtype)
    voice_encoder.register_forward_pre_hook(lambda _, given: (given[0].to(dtype),))
    voice_encoder.register_forward_hook(lambda _, given, made: made.float())

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

    if not os.path.isfile(file):  # unlike Path's, never an error; `_write` tells what is wrong with the folder
        return None
    try:
        found = Conditionals(**load_file(file))
        wrong = fault(found)
    except (SafetensorError, TypeError, OSError) as error:
        wrong = repr(error)[:200]
    if wrong:
        log.warning("%s is damaged and computed again: %s", file, wrong)
        return None
    return found


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
        with suppress(OSError):
            draft.unlink()  # a full disk needs the room
        raise UserError(f"engine.cache={file.parent.parent}: cannot be written ({error})") from error
