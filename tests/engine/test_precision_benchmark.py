"""What the benchmark of policies makes of samples, weights and figures."""

import csv
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.benchmark import outcome
from pipeline.benchmark.likeness import embed_speakers, flow_distance, mel_distance
from pipeline.benchmark.outcome import COLUMNS, FIGURES, PolicyOutcome
from pipeline.engine.chatterbox.files import VOICE_ENCODER_FILE
from pipeline.engine.chatterbox.stock import load

RATE = 24_000
FP32 = PolicyOutcome("fp32", "fp32", 100.0, 10.0, 5.0, 12.5, 8.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0)
BROKEN = PolicyOutcome("fp16", "fp16", 200.0, 20.0, 9.0, 7.5, 4.0, 1.0, None, None, None, None, None, 3)


@pytest.fixture
def noise():
    return np.random.default_rng(1).standard_normal(RATE).astype(np.float32) / 10


def test_half_as_loud_is_six_decibels_away_and_the_same_is_none(noise):
    assert mel_distance([(noise, noise)], RATE) == 0
    assert mel_distance([(noise, noise / 2)], RATE) == pytest.approx(6.02, abs=0.01)
    assert mel_distance([(noise, noise), (noise, noise / 2)], RATE) == pytest.approx(6.02 / 2**0.5, abs=0.01)


def test_mels_are_compared_in_decibels_of_magnitude():
    mel = torch.randn(80, 20)
    assert flow_distance([(mel, mel)]) == 0
    assert flow_distance([(mel, mel + math.log(2)), (mel, mel - math.log(2))]) == pytest.approx(6.02, abs=0.01)
    assert flow_distance([(mel, mel), (mel, mel * torch.nan)]) is None


def test_what_nobody_hears_beside_the_speech_counts_for_nothing(noise):
    silent = np.zeros(RATE, np.float32)
    pause = np.concatenate([noise, silent])
    assert mel_distance([(pause, pause + 1e-5 * noise[0])], RATE) < 0.1
    assert mel_distance([(silent, silent)], RATE) == 0


def test_a_speaker_is_like_himself_and_like_nobody_else(engine, tiny, noise):
    encoder = load(VOICE_ENCODER_FILE, tiny, torch.device("cpu"))
    hum = np.sin(np.arange(RATE) / 20).astype(np.float32) / 10
    same, again, other = embed_speakers(encoder, [noise, noise, hum], RATE)
    assert same @ again == pytest.approx(1, abs=1e-6) and same @ other < 0.99


def test_a_csv_has_a_line_a_policy_and_nothing_where_nothing_is_known(tmp_path):
    outcome.save_outcomes(tmp_path, [FP32, BROKEN])
    with open(tmp_path / "precision.csv", newline="") as file:
        head, exact, broken = csv.reader(file)
    assert tuple(head) == COLUMNS and exact[:3] == ["fp32", "fp32", "100.0"] and broken[-5:] == ["", "", "", "", "3"]
    rows = outcome.to_figures([FP32, BROKEN], "a card", {})
    assert len(rows) == 2 * len(FIGURES) - 5 and all(row.value is not None for row in rows)


def test_without_matplotlib_one_line_says_how_to_get_it_and_no_older_plot_stays(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    (tmp_path / "precision.png").write_text("an older one")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome.save_outcomes(tmp_path, [FP32])
    assert [path.name for path in tmp_path.iterdir()] == ["precision.csv"]
    assert caplog.messages == ["no plot: matplotlib is missing; pip install 'chatterbox-batch[plot]'"]


@pytest.mark.parametrize("known", [True, False])
def test_a_plot_is_drawn_of_whatever_is_known(tmp_path, known):
    outcome.save_outcomes(tmp_path, [FP32, BROKEN] if known else [replace(BROKEN, peak_gib=None, steady_gib=None)])
    assert (tmp_path / "precision.png").read_bytes().startswith(b"\x89PNG")
