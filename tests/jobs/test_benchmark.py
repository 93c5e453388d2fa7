"""The benchmark on the tiny stand-in: rows that are what they say, kept in a file; no test asserts a time."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.benchmark import job as job_stage
from pipeline.benchmark import s3gen, stages, start, t3
from pipeline.benchmark.sample import spread
from pipeline.benchmark.table import Figures, save

COLUMNS = {"stage", "name", "value", "unit", "stock", "ratio", "bound_share", "hardware", "torch", "date", "settings"}
ROWS = Path("outputs/benchmark/benchmark.json")


@pytest.fixture
def benchmark(job, story, cache, monkeypatch):
    monkeypatch.setattr(t3, "measure_bandwidth", lambda device: 1e10)
    options = ("stage=t3", "engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "engine.max_tokens=25")
    return lambda *more: job("benchmark", f"book={story}", *options, *more)


def test_t3_is_measured_beside_stock_and_kept_in_a_file(benchmark):
    ended = benchmark("utterances=3", "stock_utterances=1")
    assert ended.code == 0 and "batch 8: tokens" in ended.out and "batch 1: tokens" in ended.out
    rows = {row["name"]: row for row in json.loads(ROWS.read_text())}
    assert all(row.keys() == COLUMNS and row["stage"] == "t3" for row in rows.values())
    for size, count in ((8, 3), (1, 3)):
        row = rows[f"batch {size}: tokens"]
        assert row["ratio"] == pytest.approx(row["value"] / row["stock"]) and 0 < row["bound_share"]
        assert row["settings"]["batch_size"] == size and row["settings"]["utterances"] == count
        assert row["settings"]["tokens"] <= 25 * count
    assert rows["batch 8: keys and values a position"]["value"] == 2 * 2 * 1024 * 4  # tiny: two layers, FP32


@pytest.mark.long
def test_s3gen_is_measured_beside_stock_part_by_part(benchmark, monkeypatch):
    monkeypatch.setattr(s3gen, "ALONE", 5)
    ended = benchmark("stage=s3gen", "engine.flow_steps=1", "utterances=2", "stock_utterances=1")
    rows = {row["name"]: row for row in json.loads(ROWS.read_text())}
    assert ended.code == 0 and all(row["stage"] == "s3gen" for row in rows.values())
    whole = rows["tokens to watermarked samples"]
    assert whole["ratio"] == pytest.approx(whole["value"] / whole["stock"]) and whole["settings"]["flow_steps"] == 1
    assert all(rows[f"{part} alone"]["value"] > 0 for part in ("flow", "vocoder", "watermark", "its detection"))
    assert {row["settings"]["utterances"] for row in rows.values()} == {2}


@pytest.mark.long
def test_whole_jobs_are_measured_beside_stock_and_leave_nothing_behind(benchmark, monkeypatch):
    monkeypatch.setattr(stages, "ALONE", 5)
    monkeypatch.setattr(job_stage, "ABOUT_10_S", (0.0, 100.0))
    ended = benchmark(
        "stage=job", "engine.flow_steps=1", "utterances=2", "stock_utterances=1", "chapters=2", "engine.max_tokens=500"
    )
    assert ended.code == 0, ended.err
    rows = {row["name"]: row for row in json.loads(ROWS.read_text())}
    for name in ("as segmented", "one sentence an utterance", "10 s utterances", "6 s prompt"):
        row = rows[name]
        assert row["ratio"] == pytest.approx(row["value"] / row["stock"]) and row["settings"]["audio_s"] > 0
    assert {f"{stage} alone" for stage in ("tokens", "waveforms", "checks", "watermark", "files")} <= set(rows)
    assert rows["10 s of speech, text to samples, batch 1"]["value"] > 0
    assert [path.name for path in ROWS.parent.iterdir()] == [ROWS.name]


@pytest.mark.long
def test_a_start_is_measured_from_the_command_to_the_exit_and_leaves_nothing_behind(benchmark, monkeypatch):
    monkeypatch.setattr(start, "_libraries", lambda: [])  # other tests would have to read them from the disk again
    monkeypatch.setattr(start, "WARM_RUNS", 1)
    ended = benchmark("stage=start", "engine.flow_steps=1", "chapters=2", "watermark.enabled=false")
    assert ended.code == 0, ended.err
    rows = {row["name"]: row["value"] for row in json.loads(ROWS.read_text())}
    for state in ("cold", "warm"):
        marks = [rows[f"command to {mark}, {state}"] for mark in (*start.MARKS, "exit")]
        assert 0 < marks[0] and marks == sorted(marks)
        assert rows[f"last row to exit, {state}"] == pytest.approx(marks[-1] - marks[-2])
    assert 0 < rows["imports of the supervisor, warm"] < rows["imports of the worker, warm"]
    assert [path.name for path in ROWS.parent.iterdir()] == [ROWS.name]


def test_rows_of_other_stages_stay_and_what_is_no_benchmark_does_not(tmp_path, caplog):
    kept, figures = tmp_path / "benchmark.json", Figures("t3", "2 CPU cores", {})
    figures.add("tokens", 7.0, "1/s", stock=2.0)
    kept.write_text(json.dumps([dict.fromkeys(COLUMNS, 0) | {"stage": "other"}, {"stage": "t3"}]))
    assert save(tmp_path, figures.figures) == kept
    other, row = json.loads(kept.read_text())
    assert other["stage"] == "other" and row["stage"] == "t3" and row["ratio"] == 3.5 and row.keys() == COLUMNS
    kept.write_text("{")
    save(tmp_path, figures.figures)
    assert "was no benchmark" in caplog.text and json.loads(kept.read_text()) == [row]


@pytest.mark.parametrize(
    "wrong, told",
    [
        ("engine=espeak", "engine=espeak has no stages"),
        ("stage=t4", "stage=t4"),
        ("utterances=0", "utterances=0"),
        ("dry_run=true", "the option dry_run belongs to jobs.generate, not to this job"),
        ("limit=3", "the option limit belongs to jobs.generate, not to this job"),
        ("sample=3", "sample=3 is of run=; beside book= say utterances=3"),
        ("run=. stage=precision", "book="),
    ],
)
def test_wrong_options_are_told_in_one_line(job, story, wrong, told):
    ended = job("benchmark", f"book={story}", *wrong.split())
    assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1 and not ROWS.parent.exists()


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_a_sample_is_spread_from_long_to_short(count):
    numbers = list(range(9))
    chosen = spread(numbers, count)
    assert len(chosen) == min(count, 9) and chosen == sorted(set(chosen))
    assert torch.tensor(chosen).float().mean() == pytest.approx(4, abs=0.6)
