"""50 broken files of weights and 50 broken voices of a checkpoint, some with code in them."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from pipeline.engine.chatterbox import checkpoint, stock
from pipeline.engine.chatterbox.checkpoint import Checkpoint, check
from pipeline.engine.chatterbox.files import FILES, VOICE_FILE
from pipeline.engine.chatterbox.voice import Conditionals, read_builtin_voice
from pipeline.errors import UserError

from .conftest import damaged, one_line

WEIGHTS = "ve.safetensors"  # the smallest


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    """The tiny stand-in as a user's own folder; its files are links."""
    made = tmp_path / "mine"
    made.mkdir()
    for file in FILES:
        (made / file).symlink_to(tiny / file)
    return made


def replace(folder: Path, file: str, data: bytes) -> None:
    (folder / file).unlink()
    (folder / file).write_bytes(data)


def accepted(folder: Path, file: str) -> bool:
    try:
        check(Checkpoint(folder, "local", "some revision"))
    except UserError as error:
        assert str(error).startswith(f"{folder / file}: ") and one_line(error)
        return False
    return True


@cache
def weights(tiny: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of the stand-in's file."""
    file = (tiny / WEIGHTS).read_bytes()
    size = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + size]), file[8 + size :]


def safetensors(header: dict[str, Any] | bytes, data: bytes, told: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if told is None else told) + text + data


NO_HEADERS = [b"", b"{", b"[]", b"null", b"1e999", b"{" * 50, b"[" * 100_000, b'{"\xff":1}', b'{"a":NaN}', b"{}"]
NO_HEADERS += [b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b'{"a":' * 10_000 + b"1" + b"}" * 10_000]
LENGTHS = [0, 1, 7, 1303, 1305, 2**20, 2**31, 2**32, 2**40, 2**63, 2**64 - 1]
NO_VALUES = dict(
    dtype=["I32", "U32", "F64", "BOOL", "F8_E4M3", "C64", "X", "", None, 5],
    shape=[[], [-1], [0], [1.5], [2**62, 2**62], [1024, 1], [1, 1024], None, "x", [None]],
    data_offsets=[[0, 1], [10, 0], [0, 2**63], [-4, 4092], [4, 4100], [], None, [0, 4096, 5]],
)
NAMES = ["extra", "a\nb", "", "é" * 5000, "\x1b[31m", "__metadata__", "lstm.bias_hh_l3", "similarity_weight"]


def broken_weights(number: int, tiny: Path) -> bytes:
    rng = Random(f"weights {number}")
    header, data = weights(tiny)
    header, name = deepcopy(header), rng.choice(list(header))
    match number % 6:
        case 0:
            return safetensors(header, data, told=rng.choice(LENGTHS))
        case 1:
            return safetensors(rng.choice(NO_HEADERS), data[: rng.choice([0, 4, len(data)])])
        case 2:
            part = rng.choice(list(NO_VALUES))
            header[name][part] = rng.choice(NO_VALUES[part])
        case 3:
            other = rng.choice(list(header))
            change = rng.choice(["overlap", "swap", "drop", "rename", "add"])
            if change == "overlap":
                header[name] = header[other]
            elif change == "swap":
                header[name], header[other] = header[other], header[name]
            elif change == "drop":
                del header[name]
            else:
                taken = header.pop(name) if change == "rename" else dict(dtype="F32", shape=[0], data_offsets=[0, 0])
                header[rng.choice(NAMES)] = taken
        case 4:
            return damaged(safetensors(header, data), rng, within=1400)
        case 5:
            return safetensors(header, data + b"\0" if rng.random() < 0.3 else data[: rng.randrange(len(data))])
    return safetensors(header, data)


@pytest.mark.parametrize("number", range(50))
def test_broken_weights_are_loaded_or_refused_in_one_line(number, folder, tiny):
    replace(folder, WEIGHTS, broken_weights(number, tiny))
    if accepted(folder, WEIGHTS):
        stock.load(WEIGHTS, folder, torch.device("cpu"))


class Code:
    """What a pickle runs when it is read carelessly."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def saved(voice: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(voice, file, **options)
    return file.getvalue()


def with_code(rng: Random, voice: dict, marker: Path) -> bytes:
    """In a bare pickle, in a zip, in either of the older forms, and as a program for torch."""
    calls = [(os.mkdir, str(marker)), (os.system, f"touch {marker}"), (eval, f"open({str(marker)!r}, 'w')")]
    voice["t3"]["speaker_emb"] = code = Code(*rng.choice([*calls, (os._exit, 0), (exit, 0)]))
    form = rng.randrange(6)
    if form == 0:
        return saved(voice, _use_new_zipfile_serialization=False)
    if form == 1:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name in ("pickle", "storages", "tensors"):
                info = tarfile.TarInfo(name)
                info.size = len(data := pickle.dumps(code))
                tar.addfile(info, io.BytesIO(data))
        return file.getvalue()
    if form == 2:
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
        return file.getvalue()
    return saved(voice) if form == 3 else pickle.dumps(voice, protocol=rng.randrange(6))


TENSORS = [
    *(torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(-1), torch.tensor(6561), torch.tensor(0)),
    *(
        torch.tensor(0.0),
        torch.tensor(2**62),
        torch.tensor(True),
        torch.tensor(1j),
        torch.tensor(0, dtype=torch.uint16),
    ),
]


def with_another_tensor(rng: Random, voice: dict, marker: Path) -> bytes:
    """Wrong numbers, types and shapes; a shape may promise 2**40 numbers where one is."""
    part = rng.choice(list(voice))
    name = rng.choice([name for name, value in voice[part].items() if value is not None])
    tensor, value = voice[part][name], rng.choice(TENSORS)
    others = [
        value.expand(tensor.shape).clone(),
        value.expand(tensor.shape),
        value.expand(1, 2**40),
        value.expand(*tensor.shape[:-1], 2**40),
        tensor.half(),
        tensor.double(),
        tensor.int(),
        tensor[0],
        tensor[:, :0] if tensor.ndim > 1 else tensor[:0],
        torch.cat([tensor, tensor]),
        tensor.float().to_sparse(),
        tensor.to("meta"),
        torch.nn.Parameter(tensor.float()),
        tensor.numpy(),
        tensor.tolist(),
        "a\nb" * 1000,
        None,
    ]
    voice[part][name] = rng.choice(others)
    return saved(voice)


def with_another_form(rng: Random, voice: dict, marker: Path) -> bytes:
    t3, gen = voice["t3"], voice["gen"]
    name = rng.choice([*t3, *gen])
    others = [
        [t3, gen],
        None,
        "a\nb",
        {},
        t3,
        dict(t3=gen, gen=t3),
        dict(t3=[t3], gen=gen),
        {"t3": t3 | gen, "gen": {}},
    ]
    others += [dict(voice, more=1), dict(t3=t3), torch.zeros(3), {part: voice[part] | {"more": 1} for part in voice}]
    others += [{part: {key: voice[part][key] for key in voice[part] if key != name} for part in voice}]
    return saved(rng.choice(others), _use_new_zipfile_serialization=rng.random() < 0.7)


def with_other_bytes(rng: Random, voice: dict, marker: Path) -> bytes:
    return damaged(saved(voice, _use_new_zipfile_serialization=rng.random() < 0.7), rng)


def another_file(rng: Random, voice: dict, marker: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"../{marker.name}", "x")
    return rng.choice([b"", b"\0", b"\x80", b"\x80\x02.", b"hello", b"PK\3\4", file.getvalue(), rng.randbytes(5000)])


KINDS = [
    with_code,
    with_code,
    with_another_tensor,
    with_another_tensor,
    with_another_form,
    with_other_bytes,
    another_file,
]


def broken_voice(number: int, tiny: Path, marker: Path) -> bytes:
    rng = Random(f"voice {number}")
    voice = torch.load(tiny / "conds.pt", weights_only=True)
    return KINDS[number % len(KINDS)](rng, voice, marker)


@pytest.mark.parametrize("number", range(50))
def test_a_broken_voice_is_taken_or_refused_in_one_line_and_no_code_in_it_is_run(
    number, folder, tiny, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(checkpoint, "_check_tensors", lambda path: None)  # slow, and not of voices
    replace(folder, "conds.pt", broken_voice(number, tiny, marker=tmp_path / "code was run"))
    if accepted(folder, "conds.pt"):
        assert isinstance(read_builtin_voice(folder / VOICE_FILE), Conditionals)
    assert os.listdir(tmp_path) == ["mine"] and sorted(os.listdir(folder)) == sorted(FILES)
    assert capfd.readouterr().err == ""


@pytest.mark.long
def test_every_broken_voice_that_is_taken_can_be_spoken_with(folder, tiny, tmp_path):
    from pipeline.config import FP32, ChatterboxConfig, Sampling
    from pipeline.data import Request, Utterance
    from pipeline.engine.chatterbox.loaded import LoadedModels
    from pipeline.engine.chatterbox.token_stage import TokenStage
    from pipeline.engine.chatterbox.waveform_stage import WaveformStage

    models, text = LoadedModels(tiny, torch.device("cpu"), 1), "Nobody came."
    utterance = Utterance("a", "a", 0, "", 0, 0, 0, len(text), text, text, 0.0)
    taken = 0
    for number in range(150):
        replace(folder, "conds.pt", broken_voice(number, tiny, marker=tmp_path / "code was run"))
        try:
            checkpoint._check_conditionals(folder / "conds.pt")
        except UserError:
            continue
        voice, request = read_builtin_voice(folder / VOICE_FILE), Request(utterance, 1, Sampling(), FP32, 10)
        voice_of = lambda precision, voice=voice: voice  # noqa: E731
        decoded = TokenStage(models, voice_of, ChatterboxConfig(batch_size="1"), "fp32").decode(
            [request], lambda: False
        )
        (speech,) = WaveformStage(models, voice_of).speak(decoded, lambda: False)
        assert speech.error == "" and len(speech.samples), number
        taken += 1
    assert taken
    assert os.listdir(tmp_path) == ["mine"]


REFUSED = {WEIGHTS: b"\xff" * 64, "conds.pt": pickle.dumps(Code(os.mkdir, "code was run"))}


@pytest.mark.parametrize("file", REFUSED)
def test_the_command_line_refuses_a_broken_checkpoint_in_one_line_and_writes_nothing(file, folder, job, story):
    replace(folder, file, REFUSED[file])
    before = sorted(os.listdir(story.parent))
    ended = job("generate", "book=story.txt", "wandb.mode=disabled", "engine.checkpoint=mine", f"engine.cache={folder}")
    assert ended.code == 2 and ended.err.startswith(f"error: mine/{file}: ") and one_line(ended.err.rstrip("\n"))
    assert sorted(os.listdir(story.parent)) == before
