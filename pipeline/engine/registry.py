"""The engines, and how each is built from the configuration. Building one imports no torch and loads no weights."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import ChatterboxConfig, ModelConfig, Precision, VoiceConfig, VoicesConfig
from pipeline.device.environment import keep_bytecode, set_allocator

if TYPE_CHECKING:  # the supervisor needs this module before it needs numpy
    from pipeline.engine.chatterbox.engine import ChatterboxEngine
    from pipeline.engine.protocol import Engine

log = logging.getLogger(__name__)


def _chatterbox(config: ModelConfig) -> "Engine":
    from pipeline.engine.chatterbox.engine import ChatterboxEngine

    return ChatterboxEngine(config.engine, config.voice, config.precision, config.device)


def _espeak(config: ModelConfig) -> "Engine":
    from pipeline.clip import read_clip
    from pipeline.engine.espeak import EspeakEngine

    if config.voice.path:
        read_clip(Path(os.path.expanduser(config.voice.path)))  # a bad recording should fail in the draft already
        log.info("engine=espeak uses its own voice; %s is not used", config.voice.path)
    return EspeakEngine(config.engine)


ENGINES: dict[str, "Callable[[ModelConfig], Engine]"] = {"chatterbox": _chatterbox, "espeak": _espeak}


def build_engine(config: ModelConfig) -> "Engine":
    """The engine that the configuration names. `UserError` if something is missing or wrong."""
    return ENGINES[config.engine.name](config)


def prepare_environment(config: ModelConfig) -> None:
    """What speeds up the imports of processes that are started from here on."""
    if config.engine.name == "chatterbox":
        keep_bytecode(Path(os.path.expanduser(config.engine.cache)) / "bytecode")


def begin_imports(config: ModelConfig) -> None:
    """Begin to import what the engine's run needs, on a thread: reading a book takes as long. Touches no device.

    Only libraries: a module of ours that two threads import in different orders could be seen half made.
    """
    if config.engine.name == "chatterbox":
        set_allocator()  # torch reads it when it is imported
        names = ("torch",) if config.device == "cpu" else ("torch", "triton")
        threading.Thread(target=_import, args=(names,), name="imports", daemon=True).start()


def _import(names: Sequence[str]) -> None:
    for name in names:
        with suppress(ImportError):  # whoever needs it will say so
            import_module(name)


def build_voice_engine(config: VoicesConfig) -> "ChatterboxEngine":
    """An engine that computes the same conditionals as a run's. `UserError` if something is missing or wrong."""
    from pipeline.engine.chatterbox.engine import ChatterboxEngine

    weights = ChatterboxConfig(**vars(config.engine))
    voice = VoiceConfig(prompt_seconds=config.voice.prompt_seconds)
    precision = Precision(voice_encoder=config.precision.voice_encoder)
    return ChatterboxEngine(weights, voice, precision, config.device)
