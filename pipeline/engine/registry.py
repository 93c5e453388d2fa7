"""Which engines there are, and how each is built from the configuration. Building loads nothing heavy."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.config import ModelConfig
from pipeline.engine import Engine

log = logging.getLogger(__name__)


def _chatterbox(config: ModelConfig) -> Engine:
    from pipeline.engine.chatterbox import ChatterboxEngine

    return ChatterboxEngine(config.engine, config.voice, config.precision, config.device)


def _espeak(config: ModelConfig) -> Engine:
    from pipeline.engine.espeak import EspeakEngine
    from pipeline.voice import read_clip

    if config.voice.path:
        read_clip(Path(os.path.expanduser(config.voice.path)))  # a draft tells early what the real run would refuse
        log.info("engine=espeak speaks with its own voice; %s is not used", config.voice.path)
    return EspeakEngine(config.engine)


ENGINES: dict[str, Callable[[ModelConfig], Engine]] = {"chatterbox": _chatterbox, "espeak": _espeak}


def build_engine(config: ModelConfig) -> Engine:
    """`UserError` for what is missing or wrong."""
    return ENGINES[config.engine.name](config)
