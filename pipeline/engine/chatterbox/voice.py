"""The conditionals of a voice: computed once from a recording, checked, and kept on disk.

They do not depend on exaggeration. Knows nothing of utterances or exaggeration.
"""

import hashlib
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.clip import Clip
from pipeline.data import SAMPLE_RATE
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.errors import UserError

if TYPE_CHECKING:
    import torch
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.voice_encoder import VoiceEncoder

log = logging.getLogger(__name__)

ENCODER_PROMPT_S = 6.0  # the most of a recording that T3 uses
T3_RATE = 16_000  # Hz, the sample rate for T3 and the voice encoder; S3Gen uses SAMPLE_RATE

TOKENS, FRAMES = range(1, 1001), range(2, 2002)  # of a prompt: up to 40 s, while stock makes 10 s
ID_SHAPES = dict(cond_prompt_speech_tokens=(1, TOKENS), prompt_token=(1, TOKENS), prompt_token_len=(1,))
NUMBER_SHAPES = dict(speaker_emb=(1, 256), prompt_feat=(1, FRAMES, 80), embedding=(1, 192))


@dataclass(frozen=True)
class Conditionals:
    """What the model computes from a recording, by stock's names."""

    speaker_emb: "torch.Tensor"  # (1, 256)
    cond_prompt_speech_tokens: "torch.Tensor"  # (1, up to 150) int64
    prompt_token: "torch.Tensor"  # (1, T) int64, 25 a second
    prompt_token_len: "torch.Tensor"  # (1,) int64
    prompt_feat: "torch.Tensor"  # (1, 2T, 80)
    embedding: "torch.Tensor"  # (1, 192)

    def to(self, device: "torch.device | str") -> "Conditionals":
        return Conditionals(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def read_builtin_voice(path: Path) -> Conditionals:
    """The voice in a checkpoint's conds.pt, on the CPU."""
    import torch

    with warnings.catch_warnings():  # about how the file was pickled
        warnings.simplefilter("ignore")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    both = saved["t3"] | saved["gen"]
    return Conditionals(**{name: both[name] for name in Conditionals.__dataclass_fields__})


def find_fault(voice: Conditionals) -> str:
    """Why the model cannot use these tensors; "" if it can. Checks a tensor's shape before reading its values."""
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
    tokens, declared, frames = voice.prompt_token.shape[1], int(voice.prompt_token_len), voice.prompt_feat.shape[1]
    if declared != tokens or abs(frames - 2 * tokens) > 2:  # stock rounds in several places
        return f"prompt_token has {tokens} tokens, prompt_token_len says {declared}, prompt_feat is of {frames // 2}"
    return ""


def _is_size(size: int, wanted: int | range) -> bool:
    return size in wanted if isinstance(wanted, range) else size == wanted


def compute_or_read(
    clip: Clip,
    load: Callable[[], "tuple[S3Gen, VoiceEncoder]"],
    *,
    revision: str,
    prompt_seconds: float,
    precision: str,
    cache: Path,
) -> Conditionals:
    """The clip's conditionals from `cache`, or computed with the modules that `load` returns and then cached.

    FloatingPointError if they are not finite in half precision; `UserError` if the clip is unusable.
    """
    key = hashlib.sha256(repr((clip.sha256, revision, float(prompt_seconds), precision)).encode()).hexdigest()
    file = cache / "voices" / f"{key}.safetensors"
    found = _read(file)
    if found is None:
        log.info("computing the conditionals of %s, kept as %s", clip.path, file)
        found = compute(clip, *load(), prompt_seconds, precision)
        if precision in ("bf16", "fp16") and not found.speaker_emb.isfinite().all():
            raise FloatingPointError(f"{clip.path}: its embedding in {precision} is no number")
        if wrong := find_fault(found):
            raise UserError(f"{clip.path}: no voice comes of it ({wrong}); try another recording")
        _write(found, file)
    return found


def compute(
    clip: Clip, s3gen: "S3Gen", voice_encoder: "VoiceEncoder", prompt_seconds: float, precision: str
) -> Conditionals:
    """The same as stock's `prepare_conditionals`, which always uses 10 s.

    `precision` applies to the voice encoder's network alone. Speech tokens and x-vector are always FP32, as in stock.
    """
    import librosa
    import torch

    from pipeline.device.dtypes import DTYPES, float32_math

    dtype = DTYPES[precision]
    voice_encoder.to(dtype)
    voice_encoder.register_forward_pre_hook(lambda _, given: (given[0].to(dtype),))
    voice_encoder.register_forward_hook(lambda _, given, made: made.float())

    wav_24k = librosa.resample(clip.samples, orig_sr=clip.rate, target_sr=SAMPLE_RATE)
    wav_16k = librosa.resample(wav_24k, orig_sr=SAMPLE_RATE, target_sr=T3_RATE)
    encoder_prompt = wav_16k[: int(min(ENCODER_PROMPT_S, prompt_seconds) * T3_RATE)]
    with torch.inference_mode(), float32_math(precision):
        gen = s3gen.embed_ref(wav_24k[: int(prompt_seconds * SAMPLE_RATE)], SAMPLE_RATE, device=s3gen.device)
        tokens, _ = s3gen.tokenizer([encoder_prompt], max_len=150)  # (1, up to 150)
        speaker = torch.from_numpy(voice_encoder.embeds_from_wavs([wav_16k], sample_rate=T3_RATE))  # (1, 256)
    gen.pop("prompt_feat_len")  # always None
    return Conditionals(speaker_emb=speaker, cond_prompt_speech_tokens=tokens, **gen).to("cpu")


def _read(file: Path) -> Conditionals | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not os.path.isfile(file):  # unlike Path's, never raises; `_write` reports a bad folder
        return None
    try:
        found = Conditionals(**load_file(file))
        wrong = find_fault(found)
    except (SafetensorError, TypeError, OSError) as error:
        wrong = repr(error)[:200]
    if wrong:
        log.warning("%s is damaged and computed again: %s", file, wrong)
        return None
    return found


def _write(made: Conditionals, file: Path) -> None:
    """Write the file atomically. Other processes may compute the same voice at the same time."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in vars(made).items()}, draft)
        os.replace(draft, file)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            draft.unlink()  # the disk may be full
        raise UserError(f"engine.cache={file.parent.parent}: cannot be written ({error})") from error
