"""The tiny stand-in, written once for all of Chatterbox's tests, an engine and a decoder of it, and stock beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from chatterbox.models.t3.modules.cond_enc import T3Cond
from transformers.generation.logits_process import MinPLogitsWarper

from pipeline.benchmark.stock import load_t3
from pipeline.config import FP32, ChatterboxConfig, Precision, Sampling, VoiceConfig
from pipeline.data import Request, Utterance
from pipeline.engine.chatterbox.engine import ChatterboxEngine
from pipeline.engine.chatterbox.files import S3GEN_FILE
from pipeline.engine.chatterbox.loaded import LoadedModels
from pipeline.engine.chatterbox.stock import T3, S3Gen, load
from pipeline.engine.chatterbox.t3.decoder import Decoder
from pipeline.engine.chatterbox.t3.slots import Prompt
from pipeline.engine.chatterbox.t3.transformer import compute_prefix
from pipeline.engine.chatterbox.voice import Conditionals

TEXT = "Is anyone there? asked the traveller, and he knocked a second time."


@pytest.fixture(scope="session")
def make_engine(cache) -> Callable[..., ChatterboxEngine]:
    def make(voice: VoiceConfig = VoiceConfig(), precision: Precision = FP32, **options) -> ChatterboxEngine:  # noqa: B008
        options = dict(checkpoint="stand-in-tiny", cache=str(cache), flow_steps=2) | options
        return ChatterboxEngine(ChatterboxConfig(**options), voice, precision, "cpu")

    return make


@pytest.fixture(scope="session")
def engine(make_engine) -> ChatterboxEngine:
    made = make_engine()
    made.prepare()
    return made


@pytest.fixture(scope="session")
def tiny(engine, cache) -> Path:
    """The folder with the tiny stand-in's five files."""
    return cache / "stand-in-tiny-1"


@pytest.fixture
def ask() -> Callable[..., Request]:
    """A short request."""

    def make(text: str = TEXT, seed: int = 1, tokens: int = 10, precision: Precision = FP32, **sampling) -> Request:
        utterance = Utterance("story-001-00000", "story", 1, "", 0, 0, 0, len(text), text, text, 0.0)
        return Request(utterance, seed, Sampling(**sampling), precision, tokens)

    return make


@dataclass(frozen=True)
class StockStep:
    """One step of stock's decoder."""

    scores: torch.Tensor  # (8194,) after CFG, penalty and temperature
    probs: torch.Tensor  # (8194,) that the token is drawn from
    token: int


@pytest.fixture(scope="session")
def stock_t3(tiny) -> T3:
    """Stock's decoder with the tiny stand-in's weights."""
    return load_t3(tiny, torch.device("cpu"))


@pytest.fixture(scope="session")
def stock_s3gen(tiny) -> S3Gen:
    """Stock's S3Gen with the tiny stand-in's weights."""
    return load(S3GEN_FILE, tiny, torch.device("cpu"))


@pytest.fixture(scope="session")
def make_prompt(engine) -> Callable[..., Prompt]:
    def make(text: str = TEXT, seed: int = 1, tokens: int = 20, **sampling) -> Prompt:
        words = engine.residency.models.tokenizer.encode(text)
        return Prompt((255, *words, 0), seed, Sampling(**sampling), tokens)

    return make


@pytest.fixture(scope="session")
def make_decoder(engine) -> Callable[..., Decoder]:
    models = engine.residency.models

    def make(
        size: int, max_tokens: int = 200, exaggeration: float = 0.5, models: LoadedModels = models, **options
    ) -> Decoder:
        weights = models.t3(torch.float32)
        prefix = compute_prefix(weights, models.builtin_voice, exaggeration, text_length=128)
        return Decoder(weights, prefix, size, max_tokens, **options)

    return make


@pytest.fixture(scope="session")
def run_stock(engine, stock_t3) -> Callable[..., list[StockStep]]:
    """What stock's own `T3.inference` does for a prompt, by default with the tiny stand-in's weights."""

    def run(
        prompt: Prompt, t3: T3 = stock_t3, voice: Conditionals = engine.residency.models.builtin_voice
    ) -> list[StockStep]:
        sampling, steps = prompt.sampling, []
        min_p, multinomial = MinPLogitsWarper.__call__, torch.multinomial

        def recording_min_p(self, ids, scores):
            steps.append(scores[0].clone())
            return min_p(self, ids, scores)

        def recording_multinomial(probs, **options):
            token = multinomial(probs, **options)
            steps[-1] = StockStep(steps[-1], probs[0].clone(), token.item())
            return token

        torch.manual_seed(prompt.seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MinPLogitsWarper, "__call__", recording_min_p)
            patch.setattr(torch, "multinomial", recording_multinomial)
            t3.inference(
                t3_cond=T3Cond(
                    speaker_emb=voice.speaker_emb,
                    cond_prompt_speech_tokens=voice.cond_prompt_speech_tokens,
                    emotion_adv=torch.full((1, 1, 1), sampling.exaggeration),
                ),
                text_tokens=torch.tensor([prompt.text, prompt.text]),
                max_new_tokens=prompt.max_tokens,
                **{name: value for name, value in vars(sampling).items() if name != "exaggeration"},
            )
        return steps

    return run
