"""Where Chatterbox's files come from, and what bad ones get: one line that names the file and the tensor."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.device.offload import tensors_of
from pipeline.engine.chatterbox.checkpoint import check, resolve
from pipeline.engine.chatterbox.files import FILES
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.errors import UserError


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    """The tiny stand-in as a user's own folder; its files are links."""
    made = tmp_path / "mine"
    made.mkdir()
    for file in FILES:
        (made / file).symlink_to(tiny / file)
    return made


def write(folder: Path, file: str, data: bytes) -> None:
    (folder / file).unlink()
    (folder / file).write_bytes(data)


def change_tensors(folder: Path, file: str, change) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    (folder / file).unlink()
    save_file(tensors, folder / file)


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        check(resolve(str(folder), None, folder / "cache"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_with_the_five_files_is_accepted_and_its_revision_is_their_hash(folder):
    before = resolve(str(folder), None, folder / "cache")
    check(before)
    assert before.model == "local" and before.revision.startswith("sha256:")
    text = (folder / "tokenizer.json").read_bytes()
    write(folder, "tokenizer.json", text)
    assert resolve(str(folder), None, folder / "cache").revision == before.revision
    write(folder, "tokenizer.json", text + b"\n")
    assert resolve(str(folder), None, folder / "cache").revision != before.revision


def test_a_missing_folder_or_file_is_named(folder):
    (folder / "ve.safetensors").unlink()
    assert "mine: ve.safetensors" in complaint(folder)
    assert "elsewhere: no such folder" in complaint(folder / "elsewhere")


@pytest.mark.parametrize("file", ["t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors"])
def test_a_truncated_file_is_named(file, folder):
    with open(folder / file, "rb") as whole:
        start = whole.read((folder / file).stat().st_size - 1 if file.startswith("ve") else 10_000_000)
    write(folder, file, start)
    assert f"{file}: truncated" in complaint(folder)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x10\0\0\0\0\0\0\0not json at all!", b"\xff" * 64, b"<html>" * 99])
def test_what_is_no_safetensors_file_is_named(data, folder):
    write(folder, "ve.safetensors", data)
    assert "ve.safetensors: truncated, or no safetensors file" in complaint(folder)


def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(folder):
    change_tensors(folder, "ve.safetensors", lambda tensors: tensors.update({"proj.weight": torch.zeros(128, 256)}))
    assert "ve.safetensors: tensor proj.weight has shape (128, 256) where the model has (256, 256)" in complaint(folder)


def test_a_missing_or_foreign_tensor_is_named(folder):
    change_tensors(folder, "ve.safetensors", lambda tensors: tensors.pop("lstm.bias_hh_l2"))
    assert "ve.safetensors: tensor lstm.bias_hh_l2 is missing" in complaint(folder)
    change_tensors(folder, "ve.safetensors", lambda tensors: tensors.update({n: torch.ones(1024) for n in MIXED_UP}))
    assert "ve.safetensors: tensor lstm.bias_hh_l3 is not one of the model's" in complaint(folder)


MIXED_UP = ("lstm.bias_hh_l2", "lstm.bias_hh_l3")


def test_a_stack_without_any_block_is_no_smaller_model(folder):
    def drop_all_layers(tensors):
        for name in [name for name in tensors if name.startswith("tfmr.layers.")]:
            del tensors[name]

    change_tensors(folder, "t3_cfg.safetensors", drop_all_layers)
    assert "t3_cfg.safetensors: tensor tfmr.layers.0." in complaint(folder)


def test_half_precision_and_the_old_names_of_weight_norm_load(folder, engine):
    def as_an_older_torch_saved_it(tensors):
        for name in list(tensors):
            old = name.replace("parametrizations.weight.original0", "weight_g")
            old = old.replace("parametrizations.weight.original1", "weight_v")
            tensor = tensors.pop(name)
            tensors[old] = tensor.half() if tensor.is_floating_point() else tensor

    change_tensors(folder, "s3gen.safetensors", as_an_older_torch_saved_it)
    check(resolve(str(folder), None, folder / "cache"))
    loaded, wanted = (
        (
            models.flow("fp32").weights,
            models.vocoder("fp32").weights,
            tuple(models.voice_modules()[0].state_dict().values()),
        )
        for models in (LoadedModels(folder, torch.device("cpu"), 2), engine.residency.models)
    )
    for ours, tensor in zip(tensors_of(loaded), tensors_of(wanted), strict=True):
        assert ours.dtype == tensor.dtype and torch.allclose(ours, tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: data["model"]["vocab"].update({"[START]": 704}), r"[START] is token"),
        (lambda data: data["model"]["vocab"].update({"zz": 900}), "901 tokens where the model has 704"),
        (lambda data: data.clear(), "no tokenizer"),
    ],
)
def test_another_models_tokenizer_is_refused(change, message, folder):
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "[START]"]
    change(data)
    write(folder, "tokenizer.json", json.dumps(data).encode())
    assert "tokenizer.json: " in complaint(folder) and message in complaint(folder)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["MALICIOUS"],)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MALICIOUS", str(tmp_path / "it ran"))
    write(folder, "conds.pt", pickle.dumps(Malicious()))
    assert "conds.pt: not a voice" in complaint(folder)
    torch.save(dict(t3=Malicious(), gen={}), tmp_path / "zipped.pt")
    write(folder, "conds.pt", (tmp_path / "zipped.pt").read_bytes())
    assert "conds.pt: not a voice" in complaint(folder)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "part, name, tensor, message",
    [
        ("gen", "prompt_feat", torch.zeros(1, 100, 40), "prompt_feat is torch.Size([1, 100, 40])"),
        ("gen", "prompt_token", torch.full((1, 50), 6561), "prompt_token has ids that are no speech tokens"),
        ("t3", "speaker_emb", None, "speaker_emb is None"),
    ],
)
def test_a_voice_that_does_not_fit_is_named(part, name, tensor, message, folder):
    saved = torch.load(folder / "conds.pt", weights_only=True)
    saved[part][name] = tensor
    (folder / "conds.pt").unlink()
    torch.save(saved, folder / "conds.pt")
    assert message in complaint(folder)


def resolve_from_hub(home: Path, revision: str | None = None) -> subprocess.CompletedProcess:
    """In a process of its own, without a network, since huggingface_hub reads its settings once."""
    script = f"""
from pathlib import Path
from pipeline.engine.chatterbox.checkpoint import resolve
print(resolve(None, {revision!r}, Path("cache")))
"""
    environment = os.environ | dict(HF_HOME=str(home), HF_HUB_OFFLINE="1")
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)


def test_the_hubs_cache_is_used_offline_and_gives_the_commit(tiny, tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "hub" / "models--ResembleAI--chatterbox"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in FILES:
        (snapshot / file).symlink_to(tiny / file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for revision in (None, commit):
        found = resolve_from_hub(tmp_path, revision)
        assert str(snapshot) in found.stdout and f"revision='{commit}'" in found.stdout, found.stderr
    (snapshot / "conds.pt").unlink()
    assert "UserError: ResembleAI/chatterbox" in resolve_from_hub(tmp_path).stderr


def test_weights_that_cannot_be_had_name_the_two_ways_out(tmp_path):
    *_, line = resolve_from_hub(tmp_path).stderr.splitlines()
    assert line.startswith("pipeline.errors.UserError: ResembleAI/chatterbox")
    assert "engine.checkpoint=" in line and "engine=espeak" in line


def test_a_stand_in_is_resolved_without_being_written(tmp_path):
    found = resolve("stand-in", None, tmp_path / "cache")
    assert found.revision == "stand-in-1" and found.is_stand_in and not (tmp_path / "cache").exists()
