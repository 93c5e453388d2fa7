"""The five stock files: where they come from, their revision, and whether the stock modules can load them.

`resolve` is cheap and imports no torch. `check` builds the stock modules without memory and reads only file headers.
Knows nothing of devices, precision or synthesis.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from pipeline.engine.chatterbox.files import FILES, S3GEN_FILE, STAND_INS, TOKENIZER_FILE, VOICE_FILE
from pipeline.engine.chatterbox.vocabulary import TEXT_TOKENS, TEXT_VOCABULARY
from pipeline.engine.chatterbox.voice import find_fault
from pipeline.errors import UserError

REPOSITORY = "ResembleAI/chatterbox"
STAND_IN_VERSION = 1  # increase it when `stand_in` writes other numbers
_WAYS_OUT = "; use engine.checkpoint=FOLDER with the five files, or engine=espeak"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the five stock files. A stand-in's folder is written when an engine first prepares."""

    folder: Path
    model: str
    revision: str  # hub commit, or hash of the five files, or a stand-in's version

    @property
    def is_stand_in(self) -> bool:
        return self.model in STAND_INS


def resolve(checkpoint: str | None, revision: str | None, cache: Path) -> Checkpoint:
    """Find a checkpoint by folder or stand-in name. None is the hub's, downloaded if it is not in the cache.

    `UserError` if it cannot be found.
    """
    if checkpoint is None:
        folder = _from_hub(revision)
        return Checkpoint(folder, REPOSITORY, folder.name)
    if checkpoint in STAND_INS:
        name = f"{checkpoint}-{STAND_IN_VERSION}"
        return Checkpoint(cache / name, checkpoint, name)
    folder = Path(os.path.expanduser(checkpoint))
    if not os.path.isdir(folder):  # unlike Path's, these two never raise (long name, unknown user)
        raise UserError(f"engine.checkpoint={checkpoint}: no such folder (nor one of {', '.join(STAND_INS)})")
    if missing := _missing(folder):
        raise UserError(f"engine.checkpoint={checkpoint}: {', '.join(missing)} is not there")
    return Checkpoint(folder, "local", _hash(folder))


def check(checkpoint: Checkpoint) -> None:
    """`UserError` if the stock modules cannot load a file. It names the file and the tensor."""
    _check_tokenizer(checkpoint.folder / TOKENIZER_FILE)  # the fast checks first
    _check_conditionals(checkpoint.folder / VOICE_FILE)
    for file in (file for file in FILES if file.endswith(".safetensors")):
        _check_tensors(checkpoint.folder / file)


def _missing(folder: Path) -> list[str]:
    return [file for file in FILES if not (folder / file).is_file()]


def _from_hub(revision: str | None) -> Path:
    """The snapshot's folder, named by its commit. A complete one in the cache is used without the hub."""
    from huggingface_hub import snapshot_download

    def snapshot(**options: bool) -> Path:
        return Path(snapshot_download(REPOSITORY, revision=revision, allow_patterns=list(FILES), **options))

    try:
        folder = snapshot(local_files_only=True)
        if not _missing(folder):
            return folder
    except Exception:  # not in the cache, so ask the hub
        pass
    try:
        folder = snapshot()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{REPOSITORY} (revision {revision or 'main'}): {reason.rstrip('.')}{_WAYS_OUT}") from error
    if missing := _missing(folder):
        raise UserError(f"{REPOSITORY} (revision {folder.name}) has no {', '.join(missing)}{_WAYS_OUT}")
    return folder


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in FILES:
        with open(folder / file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _check_tensors(path: Path) -> None:
    from pipeline.engine.chatterbox import stock

    found = _header(path)
    expected = stock.tensors(path.name, names=found)
    if missing := expected.keys() - found.keys() - stock.COMPUTED:
        raise UserError(f"{path}: tensor {min(missing)} is missing")
    for name in expected.keys() & found.keys():
        (dtype, shape), tensor = found[name], expected[name]
        if shape != tensor.shape:
            raise UserError(f"{path}: tensor {name} has shape {shape} where the model has {tuple(tensor.shape)}")
        if tensor.is_floating_point() and "F" not in dtype:  # F32, BF16 and F8_E4M3 have an F, I8 and BOOL do not
            raise UserError(f"{path}: tensor {name} is of type {dtype} where the model has {tensor.dtype}")
    if path.name != S3GEN_FILE and (extra := found.keys() - expected.keys()):  # stock ignores extra ones in S3Gen
        raise UserError(f"{path}: tensor {ascii(min(extra))[1:-1][:100]} is not one of the model's")


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each tensor's dtype and shape, by its current name. safe_open also compares the file's length with the header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated, or no safetensors file ({_one_line(error)})") from error
    return {_current_name(name): kind for name, kind in found.items()}


def _current_name(name: str) -> str:
    """Map weight norm's older names, which PyTorch still loads, to those of the parametrization."""
    for old, new in (("_g", "0"), ("_v", "1")):
        if name.endswith(f".weight{old}"):
            return f"{name.removesuffix(old).removesuffix('weight')}parametrizations.weight.original{new}"
    return name


def _check_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer

    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # tokenizers raises nothing more precise
        raise UserError(f"{path}: no tokenizer ({_one_line(error)})") from error
    for word, token in TEXT_TOKENS.items():
        if vocabulary.get(word) != token:
            raise UserError(f"{path}: {word} is token {vocabulary.get(word)} where the model has {token}")
    if max(vocabulary.values()) >= TEXT_VOCABULARY:
        raise UserError(f"{path}: {max(vocabulary.values()) + 1} tokens where the model has {TEXT_VOCABULARY}")


def _check_conditionals(path: Path) -> None:
    from pipeline.engine.chatterbox import stock

    try:
        wrong = find_fault(stock.load_builtin_voice(path.parent))
    except Exception as error:  # weights_only refuses all but plain tensors, before any code in the file runs
        reason = f"{type(error).__name__}: {_one_line(error)}"
        if isinstance(error, UnpicklingError):  # its own text advises to run the file's code
            reason = "damaged, or more than plain tensors, which might be code and was not run"
        raise UserError(f"{path}: not a voice that Chatterbox saved ({reason})") from error
    if wrong:
        raise UserError(f"{path}: {wrong}")


def _one_line(error: Exception) -> str:
    """The error's message in one line, short and printable, because it may quote the file."""
    return repr(" ".join(str(error).split())[:200])[1:-1]
