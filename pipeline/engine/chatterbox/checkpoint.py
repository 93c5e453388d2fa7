"""The five stock files: where they come from, their revision, and whether they hold the model's tensors.

`resolve` is cheap and imports no torch. `check` reads only the headers of the weight files.
Knows nothing of devices, precision or synthesis.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from pipeline.engine.chatterbox.file_hash import hash_file
from pipeline.engine.chatterbox.files import FILES, S3GEN_FILE, STAND_INS, TOKENIZER_FILE, VOICE_FILE, WEIGHT_FILES
from pipeline.engine.chatterbox.shapes import COMPUTED, expected_tensors
from pipeline.engine.chatterbox.vocabulary import TEXT_TOKENS, TEXT_VOCABULARY
from pipeline.engine.chatterbox.voice import find_fault, read_builtin_voice
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
    return Checkpoint(folder, "local", _hash(folder, cache))


def check(checkpoint: Checkpoint) -> None:
    """`UserError` if a file does not hold what the model has. It names the file and the tensor."""
    _check_tokenizer(checkpoint.folder / TOKENIZER_FILE)  # the fast checks first
    _check_conditionals(checkpoint.folder / VOICE_FILE)
    for file in WEIGHT_FILES:
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


def _hash(folder: Path, cache: Path) -> str:
    digests = (bytes.fromhex(hash_file(folder / file, cache)) for file in FILES)
    return f"sha256:{hashlib.sha256(b''.join(digests)).hexdigest()}"


def _check_tensors(path: Path) -> None:
    found = _header(path)
    expected = expected_tensors(path.name, names=found)
    if missing := expected.keys() - found.keys() - COMPUTED:
        raise UserError(f"{path}: tensor {min(missing)} is missing")
    for name in expected.keys() & found.keys():
        (dtype, shape), kind = found[name], expected[name]
        if shape != kind.shape:
            raise UserError(f"{path}: tensor {name} has shape {shape} where the model has {kind.shape}")
        if kind.is_float and "F" not in dtype:  # F32, BF16 and F8_E4M3 have an F, I8 and BOOL do not
            raise UserError(f"{path}: tensor {name} is of type {dtype} where the model has floats")
    if path.name != S3GEN_FILE and (extra := found.keys() - expected.keys()):  # stock ignores extra ones in S3Gen
        raise UserError(f"{path}: tensor {ascii(min(extra))[1:-1][:100]} is not one of the model's")


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each tensor's dtype and shape, by its current name. safe_open also compares the file's length with the header."""
    from safetensors import SafetensorError, safe_open

    from pipeline.engine.chatterbox.saved import current_name

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated, or no safetensors file ({_one_line(error)})") from error
    return {current_name(name): kind for name, kind in found.items()}


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
    try:
        wrong = find_fault(read_builtin_voice(path))
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
