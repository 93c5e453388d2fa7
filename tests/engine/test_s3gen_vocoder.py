"""The batched vocoder against stock's, on voiced speech: any batch, any lengths, to the last sample."""

import copy
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.benchmark.stock import reference_of
from pipeline.device.convolution import conv_transpose1d
from pipeline.device.dtypes import switches
from pipeline.device.random import normal, uniform
from pipeline.engine.chatterbox.s3gen import vocoder as module
from pipeline.engine.chatterbox.s3gen import vocoder_weights
from pipeline.engine.chatterbox.s3gen.streams import PHASES, SOURCE
from pipeline.engine.chatterbox.s3gen.vocoder import Vocoder, decode, make_source, predict_f0, vocode
from pipeline.engine.chatterbox.saved import SavedTensors
from pipeline.engine.chatterbox.tuning import TUNING, Tuning

from .noise import stocks_noise

CPU = torch.device("cpu")
LENGTHS = [9, 1, 22, 5, 2, 13, 16, 7, 22]  # frames
SEED = 2**40 + 7  # of row 0; the others follow
MEMORY = 2**32  # bytes; enough for all


@dataclass(frozen=True)
class Spoken:
    """Stock's F0, source and samples of one mel."""

    f0: torch.Tensor  # (frames,)
    source: torch.Tensor  # (480 * frames,)
    samples: torch.Tensor  # (480 * frames,)


@dataclass(frozen=True)
class Case:
    """A voice's vocoders, mels, seeds, and stock's results for each mel with the noise of its seed."""

    ours: Vocoder
    stock: torch.nn.Module
    mels: list[torch.Tensor]
    seeds: list[int]
    expected: list[Spoken]


def speak_stock(stock, weights, mel, seed):
    with torch.inference_mode(), stocks_noise(weights, seed):
        pitch = stock.f0_predictor(mel[None])[0]
        samples, excitation = stock.inference(mel[None])
    return Spoken(pitch, excitation[0, 0], samples[0])


@pytest.fixture(scope="module")
def stock(stock_s3gen):
    return stock_s3gen.mel2wav


def saved_from(module: torch.nn.Module) -> SavedTensors:
    """A module's tensors as a file has them."""
    return SavedTensors(module.state_dict())


@pytest.fixture(scope="module")
def mel(engine, stock_s3gen):
    """(80, 80) of the tiny stand-in's speech, about 200 Hz"""
    tokens = torch.arange(40) * 149 % 6561
    gen = reference_of(engine.residency.models.builtin_voice)
    with torch.inference_mode():
        return stock_s3gen.flow_inference(tokens, ref_dict=gen, n_cfm_timesteps=2, finalize=True)[0].clone()


def make_case(stock, mel):
    ours, mels = (
        Vocoder(saved_from(stock), CPU),
        [mel[:, 2 * row : 2 * row + length] for row, length in enumerate(LENGTHS)],
    )
    seeds = list(range(SEED, SEED + len(mels)))
    expected = [speak_stock(stock, ours.weights, *row) for row in zip(mels, seeds, strict=True)]
    return Case(ours, stock, mels, seeds, expected)


def voiced(case):
    """The share of voiced frames."""
    return (torch.cat([spoken.f0 for spoken in case.expected]) > 10).float().mean()


@pytest.fixture(scope="module")
def steady(stock, mel):
    """The stand-in's voice."""
    made = make_case(stock, mel)
    assert voiced(made) == 1
    return made


@pytest.fixture(scope="module")
def breaking(stock, mel):
    """A voice that is unvoiced at times: its F0 is often below 10 Hz."""
    stock = copy.deepcopy(stock)
    with torch.no_grad():
        stock.f0_predictor.classifier.weight *= 3
        stock.f0_predictor.classifier.bias.zero_()
    made = make_case(stock, mel)
    assert 0.2 < voiced(made) < 0.9
    return made


@pytest.fixture(params=["steady", "breaking"])
def case(request):
    return request.getfixturevalue(request.param)


def padded(rows, length=None, junk=torch.nan):
    """Rows (..., T) of any T as one batch, with junk behind their ends."""
    length = length or max(row.shape[-1] for row in rows)
    return torch.stack([F.pad(row, (0, length - row.shape[-1]), value=junk) for row in rows])


def lengths_of(mels):
    return torch.tensor([mel.shape[1] for mel in mels])


def worst(ours, expected):
    """The largest difference, as a share of the peak."""
    assert ours.shape == expected.shape
    return ((ours - expected).abs().max() / expected.abs().max()).item()


BATCHES = [[0], [1, 8], [2, 3], [0, 1, 2, 3, 4], list(range(9))]


@pytest.mark.parametrize("rows", BATCHES, ids=str)
def test_each_row_has_stocks_pitch(rows, case):
    mels = [case.mels[row] for row in rows]
    ours = predict_f0(case.ours.weights, padded(mels), lengths_of(mels))
    for pitch, mel, row in zip(ours, mels, rows, strict=True):
        frames = mel.shape[1]
        torch.testing.assert_close(pitch[:frames], case.expected[row].f0, rtol=1e-4, atol=1e-3)
        assert (pitch[frames:] == 0).all()


@pytest.mark.parametrize("rows", BATCHES[::2], ids=str)
def test_each_row_is_stocks_speech_to_its_last_sample_given_stocks_source(rows, case):
    mels, expected = [case.mels[row] for row in rows], [case.expected[row] for row in rows]
    sources = padded([spoken.source for spoken in expected])
    ours = decode(case.ours.weights, padded(mels), sources, lengths_of(mels), "fp32")
    for samples, spoken in zip(ours, expected, strict=True):
        count = len(spoken.samples)
        assert worst(samples[:count], spoken.samples) < 1e-4
        assert (samples[count - 480 : count] - spoken.samples[-480:]).abs().max() < 1e-5  # where padding would leak in
        assert (samples[count:] == 0).all()


@pytest.mark.parametrize("limit", [1, 50, 1000], ids="groups of at most {} frames".format)
def test_from_mel_to_samples_each_row_is_stocks_for_the_same_noise(limit, case, monkeypatch):
    monkeypatch.setitem(TUNING, "cpu", Tuning(vocoder_frames=limit, vocoder_step=3))
    spoken = case.ours(case.mels, case.seeds, "fp32", MEMORY)
    for samples, expected in zip(spoken, case.expected, strict=True):
        assert samples.dtype == torch.float32 and worst(samples, expected.samples) < 2e-3


def test_after_40_s_of_voice_each_harmonic_is_still_in_phase(steady):
    """To FP32's precision: stock's phase is up to 72,000 periods, where FP32 has steps of 1/128 of a period."""
    weights, frames = steady.ours.weights, 2000
    pitch = 200 + 20 * torch.sin(torch.arange(frames) / 30)[None]
    noise = normal(torch.tensor([SEED]), SOURCE, 480 * frames)[0] * weights.noise_std * weights.harmonics.norm()
    offsets = F.pad(math.pi * (2 * uniform(torch.tensor([SEED]), PHASES, 8) - 1), (1, 0))[0]
    steps = (pitch * torch.arange(1, 10)[:, None] / 24_000).double()  # (9, T), rounded as stock rounds them
    phase = 2 * math.pi * steps.repeat_interleave(480, 1).cumsum(1) + offsets[:, None]
    exact = ((weights.harmonics[:, None] * 0.1 * phase.sin()).sum(0) + weights.harmonics_bias + noise).tanh()
    ours = make_source(weights, pitch, torch.tensor([SEED]))[0]
    with torch.inference_mode(), stocks_noise(weights, SEED):
        stock = steady.stock.m_source(steady.stock.f0_upsamp(pitch[:, None]).mT)[0][0, :, 0]
    ten_seconds = slice(0, 240_000)
    assert (ours - exact).abs().max() < 1e-4
    assert (ours - stock)[ten_seconds].abs().max() < 3e-3 and (ours - stock).abs().max() < 1.2e-2


def vocode_rows(case, rows, size, length):
    """The samples of these rows in a batch of a fixed shape; its other rows are empty."""
    mels = [case.mels[row] for row in rows] + [case.mels[0][:, :0]] * (size - len(rows))
    seeds = torch.tensor([case.seeds[row] for row in rows] + [0] * (size - len(rows)))
    samples = vocode(case.ours.weights, padded(mels, length), lengths_of(mels), seeds, "fp32")
    return {row: samples[at, : 480 * LENGTHS[row]] for at, row in enumerate(rows)}


def test_in_a_fixed_shape_a_row_has_the_same_bits_alone_in_any_batch_and_in_any_order(steady):
    together = vocode_rows(steady, [4, 0, 5, 3], 4, 20)
    for rows in ([3, 5, 0, 4], [0], [5], [7, 3, 1, 4], [5, 5, 5, 0]):
        for row, samples in vocode_rows(steady, rows, 4, 20).items():
            assert torch.equal(samples, together.get(row, samples))
            assert samples.abs().max() > 0.01


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_nan_and_infinity_stay_in_their_row(odd, steady):
    mels = [steady.mels[row].clone() for row in (0, 3, 5)]
    sound, lengths, seeds = padded(mels, junk=0.0), lengths_of(mels), torch.tensor(steady.seeds[:3])
    before = vocode(steady.ours.weights, sound, lengths, seeds, "fp32")
    mels[1][40, 2] = odd
    after = vocode(steady.ours.weights, padded(mels, junk=odd), lengths, seeds, "fp32")
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert after[1].isnan().any() and (after[1, 480 * 5 :] == 0).all()


def test_each_seed_has_its_own_noise(steady):
    one, same, other = steady.ours([steady.mels[0]] * 3, [1, 1, 1 + 2**62], "fp32", MEMORY)
    assert torch.equal(one, same) and worst(one, other) > 0.01


def test_nothing_to_say_is_nothing(steady):
    assert steady.ours([], [], "fp32", MEMORY) == []


def test_the_tensors_that_are_read_stay_as_they_are_and_are_not_read_again(stock, mel):
    own = copy.deepcopy(stock)
    before, names = {name: value.clone() for name, value in own.state_dict().items()}, str(own)
    ours = Vocoder(saved_from(own), CPU)
    (spoken,) = ours([mel[:, :4]], [1], "fp32", MEMORY)
    expected = speak_stock(own, ours.weights, mel[:, :4], 1).samples
    assert worst(spoken, expected) < 2e-3 and str(own) == names
    after = own.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.zero_()
    assert torch.equal(ours([mel[:, :4]], [1], "fp32", MEMORY)[0], spoken)


def test_tf32_is_for_the_convolutions_to_speech_only(steady, monkeypatch):
    """Pitch and the two Fourier transforms stay in FP32."""
    known, tf32, _ = switches()
    weights, asked = steady.ours.weights, []

    def spied(convolve):
        def spy(x, weight, *more, **options):
            rounded = {getattr(switch, name) == tf32 for switch, name in known}
            assert len(rounded) == 1
            asked.append((weight.data_ptr(), rounded.pop()))
            return convolve(x, weight, *more, **options)

        return spy

    monkeypatch.setattr(F, "conv1d", spied(F.conv1d))
    for user in (module, vocoder_weights):
        monkeypatch.setattr(user, "conv_transpose1d", spied(conv_transpose1d))
    steady.ours([steady.mels[1]], [1], "tf32", MEMORY)
    exact = [one.weight for one in weights.f0] + [weights.analysis, weights.synthesis, weights.window_squared]
    assert len(asked) == 89  # 72 in residual blocks, 8 around them, 6 for pitch, 3 for transforms
    assert {at for at, rounded in asked if not rounded} == {weight.data_ptr() for weight in exact}


class NoWaiting(TorchDispatchMode):
    """Fails at operations that would make the host wait for a GPU, which no CUDA graph can capture."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "item", "unique", "masked_select", "aten.equal")
        assert not any(name in str(func) for name in waits), func
        return func(*args, **(kwargs or {}))


def test_a_groups_work_never_waits_for_the_host(steady):
    mels = [steady.mels[row] for row in (1, 3)]
    inputs = steady.ours.weights, padded(mels), lengths_of(mels), torch.tensor([1, 2])
    with torch.inference_mode():
        expected = vocode(*inputs, "fp32")
        with NoWaiting():
            samples = vocode(*inputs, "fp32")
    assert torch.equal(samples, expected)


@pytest.mark.gpu
def test_on_a_gpu_each_row_is_stocks_speech_in_any_number_format(steady):
    ours, mels = Vocoder(saved_from(steady.stock), torch.device("cuda")), [mel.cuda() for mel in steady.mels]
    for number_format, tolerance in (("fp32", 2e-3), ("tf32", 2e-2)):
        spoken = ours(mels, steady.seeds, number_format, MEMORY)
        for samples, expected in zip(spoken, steady.expected, strict=True):
            assert worst(samples.cpu(), expected.samples) < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("number_format", ["fp32", "tf32"])
def test_on_a_gpu_a_captured_group_has_the_bits_of_any_other(number_format, steady):
    weights = Vocoder(saved_from(steady.stock), torch.device("cuda")).weights
    mels, lengths, seeds = padded(steady.mels).cuda(), lengths_of(steady.mels).cuda(), torch.tensor(steady.seeds).cuda()
    turned = [tensor.flip(0).contiguous() for tensor in (mels, lengths, seeds)]
    with torch.inference_mode():
        expected = vocode(weights, mels, lengths, seeds, number_format)
        assert torch.equal(vocode(weights, *turned, number_format).flip(0), expected)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            samples = vocode(weights, mels, lengths, seeds, number_format)
        for tensor, other in zip((mels, lengths, seeds), turned, strict=True):
            tensor.copy_(other)
        graph.replay()
        assert torch.equal(samples.flip(0), expected)
