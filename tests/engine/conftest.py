"""The tiny stand-in, written once for all of Chatterbox's tests, and an engine that has loaded it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.book import Utterance
from pipeline.config import FP32, ChatterboxConfig, Precision, Sampling, VoiceConfig
from pipeline.engine import Request
from pipeline.engine.chatterbox import ChatterboxEngine

TEXT = "Is anyone there? asked the traveller, and he knocked a second time."


@pytest.fixture(scope="session")
def make_engine(cache) -> Callable[..., ChatterboxEngine]:
    def make(voice: VoiceConfig = VoiceConfig(), precision: Precision = FP32, **options) -> ChatterboxEngine:  # noqa: B008
        options = dict(checkpoint="stand-in-tiny", cache=str(cache)) | options
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
