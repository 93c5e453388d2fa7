"""Which engines there are, and how each is built from the configuration. Building loads nothing heavy."""

from collections.abc import Callable

from pipeline.config import ModelConfig
from pipeline.engine import Engine


def _chatterbox(config: ModelConfig) -> Engine:
    from pipeline.engine.chatterbox import ChatterboxEngine

    return ChatterboxEngine(config.engine, config.voice, config.precision, config.device)


def _espeak(config: ModelConfig) -> Engine:
    from pipeline.engine.espeak import EspeakEngine

    return EspeakEngine(config.engine)


ENGINES: dict[str, Callable[[ModelConfig], Engine]] = {"chatterbox": _chatterbox, "espeak": _espeak}


def build_engine(config: ModelConfig) -> Engine:
    """`UserError` for what is missing or wrong."""
    return ENGINES[config.engine.name](config)
