"""Number formats: what each device makes of each policy, and that nothing global is left changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.catalogue import choices
from pipeline.clip import read_clip
from pipeline.config import FP32, Precision
from pipeline.device import dtypes
from pipeline.device.dtypes import float32_math, switches
from pipeline.engine.chatterbox.policy import formats, resolve, safer
from pipeline.engine.chatterbox.s3gen.vocoder import Vocoder
from pipeline.engine.chatterbox.voice import compute, compute_or_read

pytestmark = pytest.mark.usefixtures("bf16")

NARRATOR = Path(__file__).parents[2] / "conf" / "voice" / "narrator.flac"
CPU = torch.device("cpu")
BF16 = Precision("bf16", "bf16", "tf32", "fp32")


@pytest.fixture
def card(monkeypatch):
    """`card((8, 0))`: a CUDA device of that compute capability, as far as formats are concerned."""

    def card(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return torch.device("cuda", 0)

    return card


def test_auto_is_the_best_that_a_card_has(card):
    assert resolve(Precision(), card((9, 0))) == resolve(Precision(), card((8, 0))) == BF16
    assert resolve(Precision(), card((7, 5))) == Precision("fp16", "fp16", "fp32", "fp32")
    assert resolve(Precision(), card((7, 0))) == resolve(Precision(), CPU) == FP32


def test_what_a_device_does_not_have_is_fp32_and_said(card, caplog):
    with caplog.at_level("INFO"):
        assert resolve(BF16, card((7, 5))) == FP32
    assert caplog.messages == [
        "cuda:0 has no precision.t3=bf16, precision.flow=bf16, precision.vocoder=tf32: fp32 it is"
    ]
    assert resolve(Precision(*["fp16"] * 4), card((7, 5))) == Precision(*["fp16"] * 4)


def test_a_cpu_has_bf16_where_its_processor_has(monkeypatch):
    monkeypatch.setattr(dtypes, "cpu_has_bf16", lambda: True)
    assert resolve(Precision(*["bf16"] * 4), CPU) == Precision("bf16", "bf16", "fp32", "fp32")
    monkeypatch.setattr(dtypes, "cpu_has_bf16", lambda: False)
    assert resolve(Precision(*["bf16"] * 4), CPU) == FP32


def test_the_next_safer_precision_is_tf32_and_then_fp32(card):
    ampere = card((8, 0))
    tf32 = Precision("tf32", "tf32", "tf32", "fp32")
    assert safer(BF16, ampere) == tf32 and safer(tf32, ampere) == FP32 and safer(FP32, ampere) is None
    mixed = Precision("bf16", "tf32", "fp32", "fp16")
    assert safer(mixed, ampere) == Precision("tf32", "tf32", "fp32", "tf32")
    assert safer(Precision("fp16", "fp16", "fp32", "fp32"), card((7, 5))) == FP32  # which has no TF32
    assert safer(Precision("bf16", "fp32", "fp32", "fp32"), CPU) == FP32


def test_every_policy_is_accepted_on_every_device(make_engine):
    assert choices("precision") == ["auto", "bf16", "fp16", "fp32", "mixed", "tf32"]
    for device in (CPU, torch.device("mps")):
        for one in ("fp32", "tf32", "bf16", "fp16"):
            resolved = resolve(Precision(*[one] * 4), device)
            assert all(value in formats(device)[name] for name, value in vars(resolved).items())
    assert set(formats(torch.device("mps")).values()) == {frozenset({"fp32"})}  # nobody has measured more


def test_tf32_is_switched_for_a_block_and_back():
    known, tf32, ieee = switches()

    def read():
        return [getattr(switch, name) for switch, name in known]

    before = read()
    with pytest.raises(KeyError), float32_math("tf32"):
        assert set(read()) == {tf32}
        for one in ("fp32", "bf16", "fp16"):  # what stays FP32 beside half precision is not rounded
            with float32_math(one):
                assert set(read()) == {ieee}
        raise KeyError
    assert read() == before


def test_an_engine_leaves_none_of_torchs_switches_changed(make_engine, ask):
    known, _, _ = switches()
    before = [getattr(switch, name) for switch, name in known]
    engine = make_engine(precision=Precision("bf16", "bf16", "fp32", "fp32"))
    engine.prepare()
    (speech,) = engine.synthesize([ask(tokens=2, precision=engine.precision)], lambda: False)
    assert speech.error == "" and [getattr(switch, name) for switch, name in known] == before
    assert torch.get_default_dtype() == torch.float32 and not torch.is_autocast_enabled()


@pytest.mark.parametrize("dtype, most", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_the_vocoder_in_half_precision_says_the_same_but_for_rounding(engine, dtype, most):
    """The noise and the pitch are FP32's, so that samples can be compared."""
    saved = engine.residency.models.s3gen.under("mel2wav")
    mel = torch.randn(80, 30, generator=torch.Generator().manual_seed(0)) - 2
    (exact,) = Vocoder(saved, CPU)([mel], [1], "fp32", 2**32)
    (rounded,) = Vocoder(saved, CPU, dtype)([mel], [1], "bf16", 2**32)
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert (exact - rounded).square().mean() < (most * exact.abs().max()) ** 2


def test_half_precision_of_the_voice_encoder_is_near_fp32_and_what_is_no_number_is_told(engine, tmp_path, monkeypatch):
    clip = read_clip(NARRATOR)
    exact = compute(clip, *engine.residency.models.voice_modules(), 3.0, "fp32")
    half = compute(clip, *engine.residency.models.voice_modules(), 3.0, "bf16")
    assert torch.cosine_similarity(exact.speaker_emb, half.speaker_emb) > 0.999
    assert half.speaker_emb.dtype == torch.float32 and not torch.equal(exact.speaker_emb, half.speaker_emb)
    assert torch.equal(exact.prompt_token, half.prompt_token) and torch.equal(exact.embedding, half.embedding)

    def broken():
        s3gen, encoder = engine.residency.models.voice_modules()
        encoder.proj.weight.fill_(torch.inf)
        return s3gen, encoder

    with pytest.raises(FloatingPointError, match="its embedding in bf16 is no number"):
        compute_or_read(clip, broken, revision="", prompt_seconds=3.0, precision="bf16", cache=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


WARNED = """
import sys
from jobs.generate import generate, GenerateConfig
from jobs.cli import main
sys.argv = ["jobs.generate", *sys.argv[1:]]
main("generate", GenerateConfig, generate)
"""


@pytest.mark.long
@pytest.mark.parametrize("number_format", dtypes.DTYPES)
def test_no_format_makes_torch_warn(number_format, cache, tmp_path):
    warned_by(number_format, "cpu", cache, tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("number_format", dtypes.DTYPES)
def test_no_format_makes_torch_warn_on_a_gpu(number_format, cache, tmp_path):
    warned_by(number_format, "cuda", cache, tmp_path)


def warned_by(number_format, device, cache, folder):
    """A whole job in a process of its own, where every warning is shown each time; it shows none about precision."""
    (folder / "b.txt").write_text("Nobody came.")
    parts = [f"precision.{name}={number_format}" for name in vars(FP32)]
    options = ["engine.checkpoint=stand-in-tiny", f"engine.cache={cache}", "wandb.mode=disabled", *parts]
    command = [sys.executable, "-c", WARNED, "book=b.txt", f"device={device}", "engine.flow_steps=1", *options]
    paths = os.pathsep.join([os.getcwd(), *sys.path])
    shown = dict(PYTHONWARNINGS="always", PYTHONPATH=paths, TORCH_WARN_ONCE="0")
    ended = subprocess.run(command, cwd=folder, env=os.environ | shown, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = [line for line in (ended.stdout + ended.stderr).splitlines() if "Warning" in line]
    words = ("tf32", "precision", "autocast", "allow_", "bfloat16", "float16", "half")
    assert [line for line in told if any(word in line.lower() for word in words)] == []
