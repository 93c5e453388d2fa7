"""The table of names and shapes, and what is read by it, against stock's own modules."""

import json
import subprocess
import sys

import pytest
import torch
from chatterbox.models.s3gen import S3Gen
from chatterbox.models.t3 import T3
from chatterbox.models.t3.modules.cond_enc import T3Cond
from chatterbox.models.tokenizers import EnTokenizer

from pipeline.engine.chatterbox import shapes, stock
from pipeline.engine.chatterbox.files import TOKENIZER_FILE, WEIGHT_FILES
from pipeline.engine.chatterbox.s3gen.flow import make_schedule
from pipeline.engine.chatterbox.s3gen.vocoder_weights import make_window
from pipeline.engine.chatterbox.saved import SavedTensors
from pipeline.engine.chatterbox.t3.conditioning import embed_conditioning, read_conditioner
from pipeline.engine.chatterbox.t3.weights import make_rope

CPU = torch.device("cpu")


def test_the_table_is_what_stock_describes():
    assert json.loads(shapes.TABLE.read_text()) == stock.describe()
    assert shapes.COMPUTED == set(S3Gen.ignore_state_dict_missing)


@pytest.mark.parametrize("file", WEIGHT_FILES)
def test_a_file_is_expected_to_have_the_tensors_of_stocks_module_of_its_depth(file, tiny):
    with torch.device("meta"):
        whole = stock.build(file).state_dict()
    small = stock.load(file, tiny, CPU).state_dict()
    for module, expected in (
        (whole, shapes.expected_tensors(file)),
        (small, shapes.expected_tensors(file, names=small)),
    ):
        assert {name: (tuple(one.shape), one.is_floating_point()) for name, one in module.items()} == {
            name: (kind.shape, kind.is_float) for name, kind in expected.items()
        }


def test_rotary_angles_are_those_of_stocks_llama(stock_t3: T3):
    positions = torch.arange(6188)
    wanted = stock_t3.tfmr.rotary_emb(torch.empty(0), positions[None])  # (1, 6188, 64) each
    assert torch.equal(make_rope(6188), torch.cat(wanted))


@pytest.mark.parametrize("length", [1, 37, 150])
@pytest.mark.parametrize("exaggeration", [0.0, 0.5, 1.3])
def test_the_conditioning_is_stocks_bit_for_bit(stock_t3: T3, length, exaggeration):
    generator = torch.Generator().manual_seed(length)
    speaker, prompt = (torch.randn(1, *size, generator=generator) for size in ((256,), (length, 1024)))
    cond = T3Cond(speaker, None, torch.zeros(1, length), prompt, torch.full((1, 1, 1), exaggeration))
    ours = read_conditioner(SavedTensors(stock_t3.state_dict(), "cond_enc."), CPU)
    with torch.inference_mode():
        assert torch.equal(embed_conditioning(ours, speaker, prompt, exaggeration), stock_t3.cond_enc(cond)[0])


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_flows_times_are_embedded_as_stock_embeds_them(stock_s3gen: S3Gen, steps):
    estimator = stock_s3gen.flow.decoder.estimator
    _, shifts = make_schedule(SavedTensors(estimator.state_dict()), steps)
    t_span = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * (0.5 * torch.pi))
    with torch.inference_mode():
        embedded = torch.nn.functional.mish(estimator.time_mlp(estimator.time_embeddings(t_span[:-1])))
        stages = (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks)
        assert torch.equal(shifts, torch.stack([stage[0].mlp[1](embedded) for stage in stages], dim=1))


def test_constants_are_stocks(stock_s3gen: S3Gen, engine):
    from pipeline.engine.chatterbox.s3gen import flow, weights

    vocoder, ours = stock_s3gen.mel2wav, engine.residency.models.vocoder("fp32").weights
    assert torch.equal(make_window(), vocoder.stft_window)
    assert torch.equal(engine.residency.models.fade, stock_s3gen.trim_fade)
    assert ours.frame == vocoder.f0_upsamp.scale_factor and ours.hop == vocoder.istft_params["hop_len"]
    assert (ours.slope, ours.limit, ours.sample_rate) == (
        vocoder.lrelu_slope,
        vocoder.audio_limit,
        vocoder.sampling_rate,
    )
    sines = vocoder.m_source.l_sin_gen
    assert (ours.sine_amp, ours.noise_std, ours.voiced_hz) == (
        sines.sine_amp,
        sines.noise_std,
        sines.voiced_threshold,
    )
    assert flow.CFG_RATE == stock_s3gen.flow.decoder.inference_cfg_rate
    attention = stock_s3gen.flow.decoder.estimator.mid_blocks[0][1][0].attn1
    assert (weights.HEADS, weights.HEAD_DIM**-0.5) == (attention.heads, attention.scale)


def test_the_vocoders_convolutions_are_those_of_stock(stock_s3gen: S3Gen, engine):
    vocoder, ours = stock_s3gen.mel2wav, engine.residency.models.vocoder("fp32").weights
    pairs = [(ours.pre, vocoder.conv_pre), (ours.post, vocoder.conv_post)]
    for number, stage in enumerate(ours.stages):
        pairs += [(stage.up, vocoder.ups[number]), (stage.source_down, vocoder.source_downs[number])]
        blocks = [stage.source_block, *stage.blocks]
        stocks = [vocoder.source_resblocks[number], *vocoder.resblocks[3 * number : 3 * number + 3]]
        for block, other in zip(blocks, stocks, strict=True):
            for layer, wide, narrow in zip(block, other.convs1, other.convs2, strict=True):
                pairs += [(layer.wide, wide), (layer.narrow, narrow)]
    assert len(pairs) == 2 + 3 * (2 + 4 * 6)
    for one, other in pairs:
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
        assert (one.stride, one.padding, one.dilation) == (other.stride[0], other.padding[0], other.dilation[0])
        assert one.transposed == isinstance(other, torch.nn.ConvTranspose1d)


def test_t3s_constants_are_stocks(stock_t3: T3, engine):
    from pipeline.engine.chatterbox import vocabulary
    from pipeline.engine.chatterbox.t3 import weights

    ours = engine.residency.models.t3(torch.float32)
    assert (ours.num_heads, weights.EPS) == (stock_t3.cfg.num_attention_heads, stock_t3.cfg.rms_norm_eps)
    hp = stock_t3.hp
    assert (vocabulary.START_SPEECH, vocabulary.STOP_SPEECH) == (hp.start_speech_token, hp.stop_speech_token)


@pytest.mark.parametrize("text", ["Is anyone there?", "", "  two  spaces ", 'He said: "No."', "naïve — 42 €"])
def test_text_gets_the_ids_that_stocks_tokenizer_gives(tiny, engine, text):
    stocks = EnTokenizer(str(tiny / TOKENIZER_FILE)).encode(text)
    assert engine.residency.models.tokenizer.encode(text) == stocks


def test_neither_a_run_nor_a_cached_voice_imports_stock(tmp_path, cache):
    code = f"""
import sys
from pathlib import Path
from pipeline.config import *
from pipeline.data import Request, Utterance
from pipeline.engine.chatterbox.engine import ChatterboxEngine
options = ChatterboxConfig(checkpoint="stand-in-tiny", cache={str(cache)!r})
engine = ChatterboxEngine(options, VoiceConfig(), FP32, "cpu")
engine.prepare()
said = Utterance("story-001-00000", "story", 1, "", 0, 0, 0, 7, "Nobody.", "Nobody.", 0.0)
(speech,) = engine.synthesize([Request(said, 1, Sampling(), FP32, 10)], lambda: False)
assert speech.error == "" and len(speech.samples)
print(sorted(set(sys.modules) & {{"chatterbox", "transformers", "diffusers", "librosa", "scipy", "perth"}}))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip().endswith("[]"), ended.stdout + ended.stderr
