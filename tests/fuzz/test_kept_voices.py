"""30 broken files in the cache of voices."""

import json
import logging
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.clip import Clip
from pipeline.engine.chatterbox import voice
from pipeline.engine.chatterbox.voice import Conditionals, compute_or_read, find_fault
from pipeline.errors import UserError

from .conftest import damaged, one_line
from .test_checkpoints import NO_HEADERS, safetensors

CLIP = Clip(Path("clip.wav"), np.zeros(24_000, np.float32), 24_000, "some hash")
NUMBERS = [float("nan"), float("inf"), -1, 0, 6561, 2**31 - 1]


def made_up(feat: float = 0.0) -> Conditionals:
    return Conditionals(
        speaker_emb=torch.ones(1, 256),
        cond_prompt_speech_tokens=torch.arange(50)[None],
        prompt_token=torch.arange(50)[None],
        prompt_token_len=torch.tensor([50]),
        prompt_feat=torch.full((1, 100, 80), feat),
        embedding=torch.ones(1, 192),
    )


@pytest.fixture
def computed(monkeypatch) -> list[Conditionals]:
    """Replaces the computation; lists what came of it."""
    made: list[Conditionals] = []
    monkeypatch.setattr(voice, "compute", lambda *_: made.append(made_up()) or made[-1])
    return made


def get(cache: Path) -> Conditionals:
    return compute_or_read(CLIP, lambda: (None, None), revision="r", prompt_seconds=2.0, precision="fp32", cache=cache)


def break_file(file: Path, rng: Random) -> None:
    tensors, data = load_file(file), file.read_bytes()
    header, values = data[8 : (end := 8 + int.from_bytes(data[:8], "little"))], data[end:]
    name = rng.choice(list(tensors))
    tensor, number = tensors[name], rng.choice(NUMBERS)
    match rng.randrange(6):
        case 0:
            tensors[name] = torch.full(tensor.shape, number).to(rng.choice([tensor.dtype, torch.float, torch.half]))
        case 1:
            tensors[name] = rng.choice([tensor[:, :0] if tensor.ndim > 1 else tensor[:0], tensor[0], tensor[None]])
        case 2:
            tensors[rng.choice(["", "extra", "a\nb"])] = tensors.pop(name)
        case 3:
            told = json.loads(header)
            told[name]["shape"] = rng.choice([[2**40], [1, 2**40], [], [0]])
            file.write_bytes(safetensors(told, values))
            return
        case 4:
            file.write_bytes(safetensors(rng.choice([*NO_HEADERS, header]), values, rng.choice([None, 2**40, 0])))
            return
        case 5:
            file.write_bytes(damaged(data, rng, within=rng.choice([end, len(data)])))
            return
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, file)


@pytest.mark.parametrize("number", range(30))
def test_a_broken_file_in_the_cache_is_computed_again_and_mended(number, computed, tmp_path, caplog):
    get(tmp_path)
    (file,) = (tmp_path / "voices").iterdir()
    whole = file.read_bytes()
    break_file(file, Random(f"cache {number}"))
    with caplog.at_level(logging.WARNING):
        assert find_fault(get(tmp_path)) == ""
    if len(computed) == 2:
        assert file.read_bytes() == whole and all(map(one_line, caplog.messages)) and str(file) in caplog.text
    assert find_fault(get(tmp_path)) == "" and len(computed) <= 2
    assert list((tmp_path / "voices").iterdir()) == [file]


def test_what_is_no_file_in_the_cache_is_replaced_or_named_in_one_line(computed, tmp_path):
    get(tmp_path)
    (file,) = (tmp_path / "voices").iterdir()
    file.unlink()
    os.mkfifo(file)
    assert find_fault(get(tmp_path)) == "" and file.is_file()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError) as error:
        get(tmp_path)
    assert str(error.value).startswith(f"engine.cache={tmp_path}: cannot be written") and one_line(error.value)
    assert list((tmp_path / "voices").iterdir()) == [file]


def test_a_voice_that_comes_out_as_no_numbers_is_never_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(voice, "compute", lambda *_: made_up(feat=float("nan")))
    with pytest.raises(UserError, match="clip.wav: no voice comes of it .prompt_feat holds what is not a number"):
        get(tmp_path)
    assert list(tmp_path.iterdir()) == []
