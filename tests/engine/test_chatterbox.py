"""The Chatterbox engine on the tiny stand-in: what a run that uses it relies on."""

import os
import subprocess
import sys

import librosa
import numpy as np
import pytest
import torch
from chatterbox.models.tokenizers import EnTokenizer
from chatterbox.tts import ChatterboxTTS, Conditionals

from pipeline.checks import judge, measure
from pipeline.checks.tokens import longest_loop
from pipeline.config import FP32, ChatterboxConfig, CheckConfig, Precision, Sampling, VoiceConfig
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.files import TOKENIZER_FILE
from pipeline.engine.chatterbox.s3gen import flow, vocoder
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.chatterbox.tuning import TUNING, Tuning
from pipeline.errors import UserError, WorkError

from .noise import stocks_noise

pytestmark = pytest.mark.usefixtures("bf16")

BF16 = Precision("bf16", "fp32", "fp32", "fp32")


def speak(engine, *requests):
    return list(engine.synthesize(requests, lambda: False))


def test_what_was_loaded_before_the_first_request_is_used_and_changes_nothing(make_engine, engine, ask):
    early = make_engine()
    early.prepare()
    early.residency.load(Sampling())
    decoder = early.residency.token_stage.usual_decoder
    (one,), (other,) = [list(some.synthesize([ask(tokens=5)], lambda: False)) for some in (early, engine)]
    assert early.residency.token_stage.usual_decoder is decoder
    assert np.array_equal(one.samples, other.samples) and np.array_equal(one.tokens, other.tokens)


def test_building_an_engine_imports_nothing_heavy(cache):
    script = f"""
import sys
from pipeline.config import ChatterboxConfig, Precision, VoiceConfig
from pipeline.engine.chatterbox.engine import ChatterboxEngine

ChatterboxEngine(ChatterboxConfig(checkpoint="stand-in", cache={str(cache)!r}), VoiceConfig(), Precision(), "cpu")
print([name for name in ("torch", "chatterbox", "transformers", "librosa") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_a_user_error_that_names_the_way_out(cache):
    config = ChatterboxConfig(checkpoint="stand-in-tiny", cache=str(cache))
    with pytest.raises(UserError, match="device=cuda:1: .*device=cpu"):
        ChatterboxEngine(config, VoiceConfig(), Precision(), "cuda:1").prepare()


def test_a_request_has_the_same_bits_in_any_order_and_company(engine, ask):
    one, other = ask(), ask("A candle came down the stair.", seed=2)
    first, second = speak(engine, one, other)
    again, alone = speak(engine, other, one)
    assert np.array_equal(first.samples, alone.samples) and np.array_equal(second.samples, again.samples)
    assert not np.array_equal(first.samples, second.samples)


@pytest.mark.parametrize("changed", [dict(seed=2), dict(text="Nobody came to the door."), dict(cfg_weight=0.0)])
def test_seed_text_and_guidance_change_the_tokens(changed, engine, ask):
    before, after = speak(engine, ask(), ask(**changed))
    assert not np.array_equal(before.tokens, after.tokens)
    assert after.error == "" and len(after.samples) == len(after.tokens) * 960


END_TO_END = 2e-3  # of full scale, which the peak is near to: F0's rounding is heard as phase
LOG_SPECTRAL = 0.1  # dB


def test_greedy_speech_is_what_stock_generates_for_the_same_noise(make_engine, ask, stock_t3):
    engine = make_engine(flow_steps=10)
    engine.prepare()
    models, texts = engine.residency.models, {"Is anyone there?": 10, "A candle came down the stair.": 40, "Oh!": 25}
    spoken = speak(engine, *(ask(text, seed=n, tokens=n, exaggeration=0.7, min_p=1.0) for text, n in texts.items()))
    stock = ChatterboxTTS(stock_t3, *models.voice_modules(), EnTokenizer(str(models.folder / TOKENIZER_FILE)), "cpu")
    stock.conds = Conditionals.load(models.folder / "conds.pt")
    for speech in spoken:
        assert_same_sound(speech.samples, stock_generate(stock, engine, speech.request))


@pytest.mark.long
def test_at_full_size_three_utterances_have_stocks_waveform(cache, make_engine, ask):
    """Stock loads the files itself here. Takes 3 GB of disk and 8 GB of memory."""
    full = make_engine(checkpoint="stand-in", flow_steps=10, cache=os.environ.get("CHATTERBOX_BATCH_CACHE", str(cache)))
    full.prepare()
    texts = {"Is anyone there?": 10, "A candle came down the stair.": 40, "Oh!": 25}
    spoken = speak(full, *(ask(text, seed=tokens, tokens=tokens, min_p=1.0) for text, tokens in texts.items()))
    stock = ChatterboxTTS.from_local(full.residency.models.folder, "cpu")
    for speech in spoken:
        assert len(speech.samples) == 960 * speech.request.max_tokens
        assert_same_sound(speech.samples, stock_generate(stock, full, speech.request))


def assert_same_sound(samples, expected):
    """Log-spectral distance (Gray and Markel, 1976), over all that is less than 80 dB below the loudest bin."""
    assert np.abs(samples - expected).max() <= END_TO_END
    power = [np.abs(librosa.stft(one, n_fft=1024, hop_length=256)) ** 2 for one in (samples, expected)]
    ours, stocks = (10 * np.log10(np.maximum(one, 1e-8 * power[1].max())) for one in power)
    assert np.sqrt(np.mean((ours - stocks) ** 2, axis=0)).mean() <= LOG_SPECTRAL


def stock_generate(stock, engine, request):
    """Stock's `generate` with our noise and as long as the request asks, without the watermark."""
    inference = type(stock.t3).inference

    def as_long(**options):
        return inference(stock.t3, **options | dict(max_new_tokens=request.max_tokens))

    with (
        pytest.MonkeyPatch.context() as patch,
        stocks_noise(engine.residency.models.vocoder("fp32").weights, request.seed),
    ):
        patch.setattr(stock.t3, "inference", as_long)
        patch.setattr(stock.watermarker, "apply_watermark", lambda wav, sample_rate: wav)
        return stock.generate(request.utterance.spoken_text, **vars(request.sampling))[0].numpy()


def test_too_long_a_text_is_that_requests_error_and_the_next_is_spoken(engine, ask):
    bad, good = speak(engine, ask("x " * 2000), ask())
    assert "text tokens" in bad.error and len(bad.samples) == 0
    assert good.error == "" and len(good.samples) == 10 * 960


@pytest.fixture
def changed_logits(monkeypatch):
    """Change what the decoder's tokens are drawn from: `change(decoder, logits)`, in place."""
    logits_of = Decoder.logits

    def change_by(change):
        def logits(decoder):
            logits = logits_of(decoder)
            change(decoder, logits)
            return logits

        monkeypatch.setattr(Decoder, "logits", logits)

    return change_by


def test_speech_ends_at_the_end_token(engine, ask, changed_logits):
    def stop_after_ten(decoder, logits):
        logits[decoder.slots.step > 10, 6562] = 1e4

    changed_logits(stop_after_ten)
    (ended,) = speak(engine, ask(tokens=25))
    assert ended.ended and len(ended.tokens) == 10 and len(ended.samples) == 9600


def test_an_end_token_and_nothing_before_it_is_that_requests_error(engine, ask, changed_logits):
    def stop_at_once(decoder, logits):
        logits[decoder.slots.seed == 2, 6562] = 1e4

    changed_logits(stop_at_once)
    spoken = {speech.request.seed: speech for speech in speak(engine, ask(seed=1), ask(seed=2))}
    assert spoken[2].error == "ValueError: no speech tokens" and spoken[1].error == ""


def test_synthesis_stops_inside_an_utterance_when_asked(engine, ask):
    asked = iter([False] * 8)
    assert list(engine.synthesize([ask(tokens=25)], lambda: next(asked, True))) == []


def test_what_is_wrong_with_one_utterances_waveform_is_its_error_alone(engine, ask, monkeypatch):
    encode, prompt = flow.encode, engine.residency.models.builtin_voice.prompt_token.shape[1]

    def refuse_three(weights, tokens, lengths):
        if prompt + 3 in lengths.tolist():
            raise ValueError("three is too few")
        return encode(weights, tokens, lengths)

    monkeypatch.setattr(flow, "encode", refuse_three)
    monkeypatch.setitem(TUNING, "cpu", Tuning(plain_frames=(10_000,)))  # all at once
    spoken = {speech.request.max_tokens: speech for speech in speak(engine, *(ask(tokens=n) for n in (2, 3, 4)))}
    assert spoken[3].error == "ValueError: three is too few" and len(spoken[3].samples) == 0
    assert all(spoken[n].error == "" and len(spoken[n].samples) == 960 * n for n in (2, 4))


def test_one_speech_token_is_enough(engine, ask):
    (speech,) = speak(engine, ask(tokens=1))
    assert speech.error == "" and len(speech.samples) == 960 and speech.ended is False


def test_nan_in_the_bf16_decoder_is_told_and_leaves_fp32_unharmed(make_engine, ask):
    engine = make_engine(precision=BF16)
    engine.prepare()
    speak(engine, ask(tokens=1, precision=BF16))
    assert list(engine.residency.models.t3s) == [torch.bfloat16]  # the FP32 copy waits for the first failure
    engine.residency.models.t3(torch.bfloat16).layers[1].down[0] = torch.nan
    bad, good = speak(engine, ask(precision=BF16), ask(precision=FP32))
    assert judge(bad, 24_000, CheckConfig()).reason == "nan"
    assert good.error == "" and np.isfinite(good.samples).all()
    assert {"t3 bf16", "t3 fp32"} <= set(engine.in_use())


def test_nan_in_the_vocoder_reaches_the_samples(engine, ask, monkeypatch):
    synthesise = vocoder.synthesise
    monkeypatch.setattr(vocoder, "synthesise", lambda weights, x, lengths: synthesise(weights, x * torch.nan, lengths))
    (speech,) = speak(engine, ask())
    assert speech.error == "" and judge(speech, 24_000, CheckConfig()).reason == "nan"


def test_a_waveform_that_does_not_fit_beside_the_decoder_is_made_after_it(make_engine, ask, monkeypatch):
    engine, runs, encode = make_engine(), iter(range(10)), flow.encode

    def run_out_at_first(*args):
        if next(runs) < 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(*args)

    engine.prepare()
    monkeypatch.setattr(flow, "encode", run_out_at_first)
    spoken = speak(engine, *(ask(seed=seed) for seed in range(3)))
    assert sorted(speech.request.seed for speech in spoken) == [0, 1, 2]
    assert all(speech.error == "" and len(speech.samples) == 9600 for speech in spoken)


def test_memory_that_is_never_enough_ends_the_job_in_one_line(make_engine, ask, monkeypatch):
    def run_out(*args):
        raise torch.OutOfMemoryError("CUDA out of memory\nand more")

    engine = make_engine()
    engine.prepare()
    monkeypatch.setattr(flow, "encode", run_out)
    with pytest.raises(
        WorkError,
        match=r"^device=cpu has too little memory \(the waveform of one utterance is too large\); use device=cpu$",
    ):
        speak(engine, ask())


def test_a_cpu_refuses_a_batch_in_which_bits_would_depend_on_company(make_engine):
    with pytest.raises(UserError, match="engine.batch_size=4: .* use 1, or 8 and more"):
        make_engine(batch_size="4").prepare()
    for size in ("1", "8", "auto"):
        make_engine(batch_size=size).prepare()


def test_what_is_in_use_is_told_in_a_line_and_kept(make_engine, ask, caplog):
    engine = make_engine(precision=BF16)
    engine.prepare()
    with caplog.at_level("INFO"):
        speak(engine, ask(tokens=1, precision=BF16), ask(tokens=1))
    told = engine.in_use()
    assert told["t3 bf16"] == "bfloat16 weights and cache, 8 slots, attention of plain, no graphs"
    assert told["t3 fp32"].startswith("float32 weights and cache") and told["vocoder"] == "float32 weights"
    assert told["flow fp32"] == "float32 weights, attention of plain, no graphs"
    assert told["device"] == "cpu"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("in use: ")]
    assert lines[-1] == "in use: " + "; ".join(f"{name} {how}" for name, how in told.items())
    assert len(lines) == len(set(lines)) <= 2


def test_what_is_in_use_can_be_asked_while_waveforms_load_another_flow(engine, monkeypatch):
    models = engine.residency.models
    monkeypatch.setattr(models, "flows", {"bf16": models.flow("fp32")})

    def loading(flow):
        models.flows["fp32"] = flow
        return "told"

    monkeypatch.setattr(flow.Flow, "in_use", loading)
    assert models.in_use()["flow bf16"] == "told" and list(models.flows) == ["bf16", "fp32"]


@pytest.mark.long
def test_the_stand_in_sounds_like_something(engine, ask):
    """Audible, unclipped, without pauses or loops, of speech tokens alone: what the checks ask of real speech."""
    (speech,) = speak(engine, ask(tokens=250))
    found = measure(speech.samples, 24_000, "", floor_db=-42.0)
    assert len(speech.tokens) == 250 and speech.ended is False and longest_loop(speech.tokens) < 75
    assert -35 < found.rms_db < -10 and found.longest_pause_s < 1
    assert np.mean(np.abs(speech.samples) > 0.98) < 1e-4
    assert (
        judge(speech, 24_000, CheckConfig(max_chars_per_second=100, too_long_base_s=60), engine.unchecked).reason == ""
    )


@pytest.mark.long
def test_the_stand_ins_sampling_is_peaked_and_its_voice_about_200_hz(engine, ask, monkeypatch, changed_logits):
    logits, pitch, f0 = [], [], vocoder.predict_f0
    changed_logits(lambda decoder, guided: logits.append(guided[0].clone()))
    monkeypatch.setattr(vocoder, "predict_f0", lambda *args: pitch.append(f0(*args)) or pitch[-1])
    speak(engine, ask(tokens=100))
    guided = torch.stack(logits[1:]) / 0.8  # (100, 8194)
    assert 0.2 < guided.softmax(-1).amax(-1).median() < 0.9
    assert (guided.amax(-1) - guided[:, 6561:].amax(-1)).min() > 20  # far below min_p's cut at 3
    assert 150 < torch.cat(pitch).median() < 250


def test_a_stand_ins_cap_is_its_predicted_length(engine, make_engine, tiny):
    assert [engine.max_tokens(seconds) for seconds in (0.0, 1.01, 1000.0)] == [10, 26, 1000]
    assert engine.unchecked == {"no_eos", "cut_off"}
    real = make_engine(checkpoint=str(tiny))
    assert real.max_tokens(1.0) == 1000 and real.unchecked == frozenset()


def test_a_cache_that_cannot_be_written_is_a_user_error(make_engine, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="engine.cache=.*file"):
        make_engine(cache=str(tmp_path / "file")).prepare()


@pytest.mark.long
def test_flow_steps_change_the_audio_but_not_the_tokens(engine, make_engine, ask):
    coarse = make_engine(flow_steps=1)
    coarse.prepare()
    (before,), (after,) = speak(engine, ask()), speak(coarse, ask())
    assert np.array_equal(before.tokens, after.tokens) and not np.allclose(before.samples, after.samples, atol=1e-3)
