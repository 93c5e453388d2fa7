"""The packed flow against stock's: any pack, any lengths, to the last frame."""

from dataclasses import replace

import pytest
import torch

from pipeline.benchmark.stock import reference_of
from pipeline.device.offload import Offloaded
from pipeline.engine.chatterbox.s3gen.flow import Flow
from pipeline.engine.chatterbox.s3gen.pack import BLOCK, make_pack
from pipeline.engine.chatterbox.tuning import TUNING, Tuning

from .noise import stocks_noise

CPU = torch.device("cpu")
LENGTHS = [30, 7, 19, 1, 2, 41, 12, 3, 8]  # tokens
STEPS = 3


@pytest.fixture(scope="module")
def flow(engine):
    return Flow(engine.residency.models.s3gen.under("flow"), CPU, "fp32", STEPS)


@pytest.fixture(scope="module")
def asked():
    """Tokens and seeds."""
    return [torch.arange(n) * 149 % 6561 + n for n in LENGTHS], [2**40 + n for n in LENGTHS]


@pytest.fixture(scope="module")
def expected(engine, stock_s3gen, asked):
    """Stock's mels, each alone. (80, frames)"""
    models, made = engine.residency.models, []
    for tokens, seed in zip(*asked, strict=True):
        with stocks_noise(models.vocoder("fp32").weights, seed):
            gen = reference_of(models.builtin_voice)
            made.append(stock_s3gen.flow_inference(tokens, ref_dict=gen, n_cfm_timesteps=STEPS, finalize=True)[0])
    return made


@pytest.mark.parametrize("count", range(1, 10))
def test_ragged_mels_are_stocks_to_the_last_frame_of_the_shortest(count, flow, asked, expected, engine):
    tokens, seeds = (part[-count:] for part in asked)
    mels = flow(tokens, seeds, engine.residency.models.builtin_voice)
    for mel, stock in zip(mels, expected[-count:], strict=True):
        assert mel.shape == stock.shape and (mel - stock).abs().max() <= 1e-4 * stock.abs().max()


def test_with_a_short_prompt_mels_are_stocks_too(flow, engine, stock_s3gen):
    whole = engine.residency.models.builtin_voice
    short = replace(
        whole,
        prompt_token=whole.prompt_token[:, :25],
        prompt_token_len=torch.tensor([25]),
        prompt_feat=whole.prompt_feat[:, :51],  # stock's own rounding leaves a frame more or less
    )
    tokens = torch.arange(9) * 700
    (mel,) = flow([tokens], [1], short)
    with stocks_noise(engine.residency.models.vocoder("fp32").weights, 1):
        stock = stock_s3gen.flow_inference(tokens, ref_dict=reference_of(short), n_cfm_timesteps=STEPS, finalize=True)
    assert mel.shape == stock[0].shape == (80, 17) and (mel - stock[0]).abs().max() <= 1e-4 * stock.abs().max()


@pytest.mark.long
def test_bits_do_not_depend_on_order_or_on_the_rest_of_a_pack(flow, asked, engine, monkeypatch):
    """With packs and encoder rows of one size, as on a GPU."""
    monkeypatch.setitem(TUNING, "cpu", Tuning(encoder_multiple=256))
    make = flow._make_solver
    monkeypatch.setattr(flow, "_make_solver", lambda pack: make(make_pack(sizes, 2048, CPU)))
    voice, (tokens, seeds) = engine.residency.models.builtin_voice, asked

    def run(order):
        sizes[:] = [2 * (len(tokens[n]) + voice.prompt_token.shape[1]) for n in order]
        return dict(zip(order, flow([tokens[n] for n in order], [seeds[n] for n in order], voice), strict=True))

    sizes = []
    first, backwards, other = run([0, 1, 2, 3]), run([3, 2, 1, 0]), run([5, 1, 7, 3])
    assert all(torch.equal(first[n], backwards[n]) for n in range(4))
    assert all(torch.equal(first[n], other[n]) for n in (1, 3))


def test_nan_stays_in_its_sequence(flow, asked, engine):
    tokens, seeds = (part[:3] for part in asked)
    good = flow(tokens, seeds, engine.residency.models.builtin_voice)
    broken = Flow(engine.residency.models.s3gen.under("flow"), CPU, "fp32", STEPS)
    used_by_second = tokens[1][0]
    assert used_by_second not in torch.cat(
        [tokens[0], tokens[2], engine.residency.models.builtin_voice.prompt_token[0]]
    )
    encoder = replace(
        broken.weights.encoder, tokens=broken.weights.encoder.tokens.clone()
    )  # else it is that of all flows
    broken.offloaded = Offloaded(replace(broken.weights, encoder=encoder), CPU)
    encoder.tokens[used_by_second] = torch.nan
    first, second, third = broken(tokens, seeds, engine.residency.models.builtin_voice)
    assert torch.equal(first, good[0]) and torch.equal(third, good[2]) and second.isnan().all()


def test_bf16_is_near(engine, asked, expected):
    mels = Flow(engine.residency.models.s3gen.under("flow"), CPU, "bf16", STEPS)(
        *(part[:2] for part in asked), engine.residency.models.builtin_voice
    )
    for mel, stock in zip(mels, expected, strict=False):
        assert mel.dtype == torch.float32
        assert (mel - stock).square().mean() <= 1e-2 * stock.square().mean()  # 20 dB


def test_a_pack_has_every_frame_once_with_its_position():
    lengths = [130, 64, 200]
    pack = make_pack(lengths, 512, CPU)
    assert pack.spans == ((0, 130), (130, 194), (194, 394), (512, 642), (642, 706), (706, 906))
    covered = torch.zeros(1024, dtype=torch.int64)
    for first, begin, end in pack.blocks.tolist():
        covered[first : min(first + BLOCK, end)] += 1
        assert (begin, end) in pack.spans or begin == end == 0
    for begin, end in pack.spans:
        assert (covered[begin:end] == 1).all() and pack.position[begin:end].tolist() == list(range(end - begin))
    assert covered.sum() == 2 * sum(lengths)


@pytest.mark.parametrize("lengths", [[300, 300], [1] * 13])
def test_what_does_not_fit_into_a_pack_is_refused(lengths):
    with pytest.raises(ValueError, match="do not fit into 512 frames"):
        make_pack(lengths, 512, CPU)
