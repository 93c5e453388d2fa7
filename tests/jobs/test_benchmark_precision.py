"""`stage=precision` on the tiny stand-in: each policy beside FP32, on a book or on a run; no test asserts a time."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import jobs.benchmark as job_module
from jobs.options import read_policies
from pipeline.benchmark import t3
from pipeline.benchmark.outcome import COLUMNS
from pipeline.config import FP32, ChatterboxConfig, GenerateConfig, Precision, Sampling, VoiceConfig
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.store import RunFolder
from pipeline.store.finished import read_config
from pipeline.telemetry.record import RunRecord

from ..conftest import UNMARKED
from .test_generate import OUT

KEPT = Path("outputs/benchmark")
LIKENESS = ("t3_agreement", "t3_kl_nats", "mel_distance_db", "speaker_cosine")
pytestmark = pytest.mark.usefixtures("bf16")
BF16 = Precision("bf16", "bf16", "fp32", "fp32")
# The benchmark, told to stop in the middle of its first job.
STOPPED = """
import os, runpy, signal, sys
from pipeline.run.loop import RenderLoop
begin = RenderLoop.run
def told(synthesizer, planned):
    os.kill(os.getpid(), signal.SIGTERM)
    begin(synthesizer, planned)
RenderLoop.run = told
sys.argv[0] = "jobs/benchmark.py"
runpy.run_module("jobs.benchmark", run_name="__main__")
"""


@pytest.fixture
def benchmark(job, cache, monkeypatch):
    """Two short utterances at most, and few steps."""
    monkeypatch.setattr(t3, "STEPS", 6)
    tiny = ("engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "engine.flow_steps=1", "wandb.mode=disabled")
    return lambda *more: job("benchmark", "stage=precision", UNMARKED, *tiny, *more)


@pytest.fixture
def only(monkeypatch):
    """`only(bf16=BF16)`: these policies beside FP32."""
    return lambda **chosen: monkeypatch.setattr(job_module, "read_policies", lambda: chosen)


@pytest.fixture
def run(tmp_path, cache):
    """`run(**options)`: a folder with the record of a run of the tiny stand-in, but with no speech."""

    def make(name: str = "mine", engine: ChatterboxConfig | None = None, **options) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.create()
        engine = engine or ChatterboxConfig(checkpoint="stand-in-tiny", cache=str(cache), flow_steps=1)
        RunRecord(folder.root, GenerateConfig(book="x", engine=engine, **options)).write("ended")
        return folder

    return make


def table() -> dict[str, dict[str, str]]:
    with open(KEPT / "precision.csv", newline="", encoding="utf-8") as file:
        return {row["policy"]: row for row in csv.DictReader(file)}


def short(tmp_path) -> str:
    (tmp_path / "short.txt").write_text("A candle came down the stair.\n\nNobody carried it.\n")
    return "book=short.txt"


@pytest.mark.long
def test_five_policies_are_measured_beside_fp32_given_its_tokens(benchmark, tmp_path):
    ended = benchmark(short(tmp_path), "wandb.mode=offline")
    assert ended.code == 0, ended.err
    rows = table()
    assert list(rows) == ["fp32", "bf16", "fp16", "mixed", "tf32"] and list(rows["fp32"]) == list(COLUMNS)
    assert [float(rows["fp32"][name]) for name in LIKENESS] == [1, 0, 0, pytest.approx(1)]
    assert rows["bf16"]["used"] == "t3=bf16 flow=bf16 vocoder=fp32 voice_encoder=fp32"  # a CPU knows no TF32
    agreement, kl, distance, cosine = (float(rows["bf16"][name]) for name in LIKENESS)
    assert 0.5 < agreement <= 1 and 0 < kl < 0.1 and 0 < distance < 20 and 0.5 < cosine < 1 - 1e-6
    assert float(rows["mixed"]["t3_kl_nats"]) > 0 and float(rows["mixed"]["mel_distance_db"]) == 0  # BF16 in T3 alone
    assert float(rows["bf16"]["weights_gib"]) < float(rows["mixed"]["weights_gib"]) < float(rows["fp32"]["weights_gib"])
    for row in rows.values():
        assert row["checks_failed"] == "0" and row["peak_gib"] == row["steady_gib"] == ""  # without CUDA
        assert all(float(row[name]) > 0 for name in ("t3_tokens_per_s", "s3gen_x_realtime", "job_x_realtime"))

    kept = {row["name"]: row for row in json.loads((KEPT / "benchmark.json").read_text())}
    assert {row["stage"] for row in kept.values()} == {"precision"} and "bf16: KL of T3 from FP32" in ended.out
    assert kept["bf16: KL of T3 from FP32"]["value"] == kl and kept["fp16: T3"]["settings"]["precision"] == "fp32"
    assert (KEPT / "precision.png").read_bytes().startswith(b"\x89PNG")
    (in_wandb,) = KEPT.glob("wandb/offline-run-*/files/media/table/precision_*.table.json")
    assert json.loads(in_wandb.read_text())["columns"] == list(COLUMNS)
    assert {path.name for path in KEPT.iterdir()} == {"benchmark.json", "precision.csv", "precision.png", "wandb"}


@pytest.mark.long
def test_a_policy_that_is_not_finite_is_told_and_ends_nothing(benchmark, only, tmp_path, monkeypatch):
    load_t3, load_flow = LoadedModels.t3, LoadedModels.flow

    def spoilt_t3(models, dtype):
        weights = load_t3(models, dtype)
        return weights if str(dtype) == "torch.float32" else replace(weights, norm=weights.norm * float("nan"))

    def spoilt_flow(models, number_format):
        flow = load_flow(models, number_format)
        if number_format == "bf16":
            with torch.inference_mode():
                flow.weights.dt.fill_(float("nan"))
        return flow

    monkeypatch.setattr(LoadedModels, "t3", spoilt_t3)
    monkeypatch.setattr(LoadedModels, "flow", spoilt_flow)
    only(bf16=BF16)
    ended = benchmark(short(tmp_path))
    assert ended.code == 0, ended.err
    rows = table()
    assert [rows["bf16"][name] for name in LIKENESS] == ["", "", "", ""] and rows["bf16"]["checks_failed"] == "2"
    assert "bf16: KL of T3 from FP32" not in ended.out and rows["fp32"]["checks_failed"] == "0"


@pytest.mark.long
def test_a_run_is_measured_with_its_own_voice_options_and_texts(benchmark, only, job, cache, tmp_path):
    only()
    options = ("engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "engine.flow_steps=2", "voice.name=anna")
    run = ("generate", short(tmp_path), "out=mine", UNMARKED, "wandb.mode=disabled", *options)
    assert job(*run).code == 0
    Path("short.txt").unlink()  # the run has its text
    ended = benchmark("run=mine", "sample=1", "voice.name=bob")
    assert ended.code == 0, ended.err
    settings = json.loads((KEPT / "benchmark.json").read_text())[0]["settings"]
    assert settings["flow_steps"] == 2 and settings["speaker"] == "anna" and settings["run"] == "mine"
    assert settings["utterances"] == 1 and list(table()) == ["fp32"]


@pytest.mark.long
def test_sigterm_in_the_middle_of_a_job_ends_the_benchmark_and_leaves_nothing(cache, tmp_path):
    options = (short(tmp_path), "stage=precision", UNMARKED, "engine.flow_steps=1", f"engine.cache={cache}")
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED, *options, "engine.checkpoint=stand-in-tiny"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 143 and "finishing what is in flight" in ended.stderr
    assert list((tmp_path / KEPT).iterdir()) == []


def test_all_policies_but_auto_are_known_by_name():
    found = read_policies()
    assert list(found) == ["bf16", "fp16", "fp32", "mixed", "tf32"]
    assert found["fp32"] == FP32 and found["bf16"] == Precision("bf16", "bf16", "tf32", "fp32")


def test_the_newest_record_that_can_be_read_decides_and_this_machine_only_what_is_its_own(run, caplog):
    engine = ChatterboxConfig(checkpoint="stand-in-tiny", flow_steps=3, batch_size="16", cache="there")
    run(engine=ChatterboxConfig(flow_steps=9))
    folder = run(engine=engine, voice=VoiceConfig(name="anna"), sampling=Sampling(temperature=0.7), device="cuda:1")
    (folder.root / "runs" / "99991231T000000.000000Z-0.json").write_text("{")
    (folder.root / "runs" / "99991230T000000.000000Z-0.json").write_text('{"config": {"engine": 1}}')
    (folder.root / "runs" / "99991229T000000.000000Z-0.json").write_text("[]")
    asked = job_module.BenchmarkConfig(run=str(folder.root), sample=5, engine=ChatterboxConfig(flow_steps=1))
    found = job_module.use_run(asked, read_config(folder.root))
    assert found.engine == engine and found.voice.name == "anna" and found.sampling.temperature == 0.7
    assert found.device == "cuda:1" and found.utterances == 5 and found.out == asked.out
    assert sum("99991" in line or "passed over" in line for line in caplog.messages) == 3

    here = replace(asked, device="cpu", engine=ChatterboxConfig(batch_size="8", cache="here"))
    found = job_module.use_run(here, read_config(folder.root))
    assert found.device == "cpu" and found.engine == replace(engine, batch_size="8", cache="here")


@pytest.mark.parametrize(
    "options, told",
    [
        ("stage=precision", "book= is missing, or run= with stage=precision"),
        ("stage=t3", "book= is missing, or run="),
        ("stage=precision book=x run=mine", "book=x and run=mine both say what is spoken"),
        ("stage=t3 run=mine", "run=mine is for stage=precision; stage=t3 wants book="),
        ("stage=precision run=mine sample=0", "sample=0 is out of range: 1 or more"),
        ("stage=precision run=nowhere", "run=nowhere: no run in it"),
        (f"stage=precision run={'x' * 5000}", ": no run in it"),
        ("stage=precision run=mine", "run=mine has no plan that can be read"),
    ],
)
def test_wrong_options_of_a_run_are_told_in_one_line(job, run, options, told):
    run()
    ended = job("benchmark", *options.split())
    assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1 and not KEPT.exists()


def test_a_run_of_the_draft_voice_has_no_policies(draft, job):
    assert draft(UNMARKED, "limit=1").code == 0
    ended = job("benchmark", "stage=precision", f"run={OUT}")
    assert ended.code == 2 and "engine=espeak has no stages to measure" in ended.err and not KEPT.exists()
