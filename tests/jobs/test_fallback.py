"""Faults forced into the tiny stand-in's modules: the right reason, then an FP32 retry that the manifest shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config import FP32, Precision
from pipeline.engine.chatterbox import policy, stand_in, voice
from pipeline.engine.chatterbox.s3gen import vocoder
from pipeline.engine.chatterbox.s3gen.flow import Flow
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.registry import build_engine
from pipeline.run import session

from ..conftest import rows_of

pytestmark = pytest.mark.usefixtures("bf16")

TEXT = "Nobody came."
END_TOKEN = 6562


@pytest.fixture(scope="module")
def engines():
    """What is left as it was for the next test: loading weights takes most of the time."""
    return {}


@pytest.fixture
def run(job, tmp_path, monkeypatch, cache, engines):
    """Render TEXT with a BF16 decoder, one of its own after `break_it(models)`; returns the job's end and its rows."""
    (tmp_path / "b.txt").write_text(TEXT)

    def run(break_it=None, *more):
        def broken(config):
            engine = build_engine(config) if break_it or not engines else engines["whole"]
            engine.prepare()
            if break_it:
                break_it(engine.residency.models)
            else:
                engines["whole"] = engine
            return engine

        monkeypatch.setattr(session, "build_engine", broken)
        defaults = ("engine.checkpoint=stand-in-tiny", "engine.batch_size=1", "engine.flow_steps=1")
        defaults += ("precision.t3=bf16", "wandb.mode=disabled")
        ended = job("generate", "book=b.txt", f"engine.cache={cache}", *defaults, *more)
        ok, failed = Path("outputs/b/metadata.parquet"), Path("outputs/b/failed.parquet")
        return ended, rows_of(ok) + (rows_of(failed) if failed.exists() else [])

    return run


def attempts(row: dict) -> list[tuple[str, str]]:
    """Number format of the decoder and reason of each attempt."""
    return [("fp32" if "fp32" == a["precision"] else a["precision"].split()[0], a["reason"]) for a in row["attempts"]]


def test_nan_in_the_bf16_decoder_is_spoken_again_in_fp32_with_the_same_seed(run):
    def break_it(models):
        models.t3(torch.bfloat16).layers[0].down.fill_(float("nan"))

    ended, (row,) = run(break_it)
    assert ended.code == 0 and row["status"] == "ok" and row["precision"] == "fp32"
    assert attempts(row) == [("t3=bf16", "nan"), ("fp32", "")]
    assert row["attempts"][0]["seed"] == row["attempts"][1]["seed"] == row["seed"]


@pytest.mark.parametrize("component", vars(FP32))
def test_nan_in_one_component_lets_that_component_alone_fall_back(run, component, monkeypatch):
    """All four in BF16, which a CPU computes but slowly."""
    monkeypatch.setattr(policy, "formats", lambda device: dict.fromkeys(vars(FP32), policy.ALL))
    compute = voice.compute

    def no_number_in_bf16(clip, s3gen, encoder, seconds, number_format):
        made = compute(clip, s3gen, encoder, seconds, number_format)
        return made if number_format == "fp32" else replace(made, speaker_emb=made.speaker_emb * torch.nan)

    def break_it(models):
        if component == "voice_encoder":
            monkeypatch.setattr(voice, "compute", no_number_in_bf16)
        else:
            broken = dict(
                t3=lambda: models.t3(torch.bfloat16).layers[0].down,
                flow=lambda: models.flow("bf16").weights.estimator.final_bias,
                vocoder=lambda: models.vocoder("bf16").weights.post.bias,
            )
            broken[component]().fill_(torch.nan)

    heard = 1.5 if component == "voice_encoder" else 1.0  # of which no conditionals are kept yet
    parts = [f"precision.{name}=bf16" for name in vars(FP32) if name != "t3"]
    ended, (row,) = run(break_it, "voice=narrator", f"voice.prompt_seconds={heard}", *parts)
    assert ended.code == 0 and row["status"] == "ok", row["error"]
    first, second = row["attempts"]
    assert first["precision"] == "bf16" and first["reason"] == "nan" and first["seed"] == second["seed"]
    assert second["precision"] == str(replace(Precision(*["bf16"] * 4), **{component: "fp32"}))


def test_nan_that_stays_when_its_component_is_fp32_is_tried_in_fp32_as_a_whole(run, monkeypatch):
    """The flow's word, in whatever format, while T3 is BF16."""
    call = Flow.__call__

    def broken(flow, tokens, seeds, voice):
        mels = call(flow, tokens, seeds, voice)
        return [mel * torch.nan for mel in mels] if next(made) < 2 else mels

    made = iter(range(10))
    monkeypatch.setattr(Flow, "__call__", broken)
    ended, (row,) = run(lambda models: None, "precision.flow=bf16")
    assert [a["precision"] for a in row["attempts"]] == [
        "t3=bf16 flow=bf16 vocoder=fp32 voice_encoder=fp32",
        "t3=bf16 flow=fp32 vocoder=fp32 voice_encoder=fp32",
        "fp32",
    ]
    assert ended.code == 0 and row["status"] == "ok"


def test_silence_from_the_vocoder_is_spoken_again(run, monkeypatch):
    change(monkeypatch, lambda x: x * 0 - 100, times=1)  # log magnitudes
    ended, (row,) = run()
    assert ended.code == 0 and attempts(row) == [("t3=bf16", "silent"), ("fp32", "")]


def test_a_decoder_that_never_ends_is_spoken_again(run, tmp_path, monkeypatch):
    """A folder is judged as real weights are, and the stand-in's weights never draw the end token."""
    stand_in.write(tmp_path / "weights", "stand-in-tiny")
    logits_of = Decoder.logits

    def end_after_40_in_fp32(decoder):
        logits = logits_of(decoder)
        if decoder.weights.dtype is torch.float32:
            logits[decoder.slots.step > 40, END_TOKEN] = 1000
        return logits

    monkeypatch.setattr(Decoder, "logits", end_after_40_in_fp32)
    ended, (row,) = run(lambda models: None, "engine.checkpoint=weights", "engine.max_tokens=60", "check.cut_off_db=0")
    assert ended.code == 0 and attempts(row) == [("t3=bf16", "no_eos"), ("fp32", "")]
    assert row["attempts"][0]["seed"] == row["attempts"][1]["seed"] and len(row["speech_tokens"]) == 40


def test_speech_that_stays_bad_goes_down_the_whole_ladder_and_fails(run, monkeypatch):
    change(monkeypatch, lambda x: x * 0 - 100, times=100)
    ended, (row,) = run()
    assert ended.code == 1 and row["status"] == "failed" and row["error"].startswith("silent: ")
    assert attempts(row) == [("t3=bf16", "silent"), *[("fp32", "silent")] * 3]
    seeds = [a["seed"] for a in row["attempts"]]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3


def test_a_row_that_the_last_step_saved_says_what_its_speech_was_drawn_with(run, monkeypatch):
    change(monkeypatch, lambda x: x * 0 - 100, times=3)
    ended, (row,) = run()
    assert ended.code == 0 and [reason for _, reason in attempts(row)] == ["silent", "silent", "silent", ""]
    sampled = [json.loads(attempt["sampling"]) for attempt in row["attempts"]]
    assert [one["temperature"] for one in sampled] == pytest.approx([0.8, 0.8, 0.8, 0.6])
    assert [one["min_p"] for one in sampled] == [0.05, 0.05, 0.05, 0.1] and sampled[3]["top_p"] == 0.95
    kept = json.loads(row["params"])
    assert kept["sampling"] == sampled[3] and kept["precision"]["t3"] == "bf16"  # as asked for
    assert row["seed"] == row["attempts"][3]["seed"] and row["precision"] == "fp32"


def test_the_fp32_weights_are_loaded_at_the_first_failure_and_not_before(run):
    loaded = []
    run(lambda models: loaded.append(models))
    assert list(loaded[0].t3s) == [torch.bfloat16]


def change(monkeypatch, work, times):
    """Change what the vocoder makes speech of, so many times."""
    synthesise, calls = vocoder.synthesise, []

    def changed(weights, x, lengths):
        calls.append(x)
        return synthesise(weights, work(x) if len(calls) <= times else x, lengths)

    monkeypatch.setattr(vocoder, "synthesise", changed)
