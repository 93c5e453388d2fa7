"""The batched watermark against Perth itself, and each row of a batch against the row alone. All on the CPU."""

import numpy as np
import pytest
import torch

from pipeline.store.wav import to_float, to_pcm16
from pipeline.watermark.perth import Perth, load_perth
from pipeline.watermark.perth_batched import BatchedPerth
from pipeline.watermark.perth_weights import read_perth

RATE = 24_000
SECONDS = [0.3, 7.03, 0.31, 2.5, 7.0, 0.7, 12.0, 1.0, 0.5, 30.0]  # 9 without the longest: a group of 10 rows
PEAKS = [0.5, 0.02, 0.95]


@pytest.fixture(scope="module")
def net():
    return load_perth()


@pytest.fixture(scope="module")
def reference(net):
    return Perth(net)


@pytest.fixture(scope="module")
def batched():
    return BatchedPerth(read_perth(), "cpu")


def voiced(seconds: float, number: int) -> np.ndarray:
    """A gliding, swelling buzz with noise in it. (num_samples,)"""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(4 * time + number)) / RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 40))
    wave += 0.05 * np.random.default_rng(number).standard_normal(len(time))
    wave *= 0.55 + 0.45 * np.sin(19 * time + number)
    return (PEAKS[number % 3] * wave / np.abs(wave).max()).astype(np.float32)


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    return [voiced(seconds, number) for number, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def marked(batched, speech):
    return batched.apply(speech, RATE)


def use_one_group(monkeypatch):
    monkeypatch.setattr("pipeline.watermark.perth_batched.GROUP_S", 1000)


def test_a_row_is_marked_as_if_it_were_alone_up_to_its_last_sample(batched, speech, monkeypatch):
    use_one_group(monkeypatch)
    together = batched.apply(speech[:-1], RATE)
    for row, before in zip(together, speech[:-1], strict=True):
        (alone,) = batched.apply([before], RATE)
        assert row.shape == before.shape and row.dtype == np.float32
        assert np.abs(row - alone).max() < 1e-5 * np.abs(alone).max()


@pytest.mark.long
def test_a_row_is_scored_as_if_it_were_alone(batched, speech, marked, monkeypatch):
    use_one_group(monkeypatch)
    rows = [*marked[:-1], *speech[:4]]
    alone = [score for row in rows for score in batched.score([row], RATE)]
    assert batched.score(rows, RATE) == pytest.approx(alone, abs=1e-5)


def test_the_weights_are_those_that_perth_loads(net):
    ours, loaded = read_perth(), net.perth_net
    assert (ours.hop, ours.n_fft, ours.sample_rate) == (loaded.hp.hop_size, loaded.hp.n_fft, loaded.hp.sample_rate)
    assert (ours.subband, ours.least_magnitude) == (loaded.subband, loaded.hp.stft_magnitude_min)
    decoder = loaded.decoder
    stacks = (loaded.encoder.layers, decoder.slow_layers, decoder.normal_layers, decoder.fast_layers)
    for layers, modules in zip((ours.encoder, *ours.decoders), stacks, strict=True):
        for (weight, bias), module in zip(layers, modules, strict=True):
            assert torch.equal(weight, module.conv.weight) and torch.equal(bias, module.conv.bias)


def test_perth_finds_the_mark_in_what_is_written(reference, marked):
    scores = reference.score([to_float(to_pcm16(row)) for row in marked], RATE)
    assert min(scores) > 0.99


def test_the_score_is_perths_own_with_and_without_a_mark(batched, reference, speech, marked):
    rows = [*(to_float(to_pcm16(row)) for row in marked), *speech]
    assert batched.score(rows, RATE) == pytest.approx(reference.score(rows, RATE), abs=1e-3)


def test_the_sound_is_perths_own_but_for_the_resampler_in_the_highest_band(reference, speech, marked):
    """Measured: -110 dB below 10.5 kHz. Above that our resampler keeps more of the band."""
    for row, before in zip(marked, speech, strict=True):
        (expected,) = reference.apply([before], RATE)
        assert db(row - expected) < db(expected) - 45
        spectrum = np.fft.rfft((row - expected) * np.hanning(len(row)))
        spectrum[int(10_000 / RATE * len(row)) :] = 0
        assert db(np.fft.irfft(spectrum)) < db(expected) - 90


def db(samples: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def test_silence_and_clicks_do_no_harm(batched):
    rows = [np.zeros(RATE, np.float32), np.ones(1, np.float32), np.ones(700, np.float32)]
    marked = batched.apply(rows, RATE)
    assert [len(row) for row in marked] == [len(row) for row in rows] and np.isfinite(np.concatenate(marked)).all()
    scores = batched.score(rows, RATE)
    assert scores[0] == 0 and all(0 <= score <= 1 for score in scores)


def test_nothing_to_do_is_nothing_done(batched):
    assert batched.apply([], RATE) == [] and batched.score([], RATE) == []
