"""Which utterances are measured, and what is asked of the engine for each. Knows no stage."""

import random
from collections.abc import Sequence
from typing import TypeVar

from pipeline.config import SpeechConfig
from pipeline.data import Request
from pipeline.engine.protocol import Engine
from pipeline.plan import Planned

T = TypeVar("T")


def draw_sample(planned: Sequence[Planned], count: int, seed: int) -> list[Planned]:
    """So many of them, longest first, as a window of a job has them."""
    chosen = random.Random(seed).sample(planned, min(count, len(planned)))
    return sorted(chosen, key=lambda item: (-item.predicted_s, item.utterance.id))


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many of them, those at the front and those at the end alike."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def requests_of(engine: Engine, planned: Sequence[Planned], config: SpeechConfig) -> list[Request]:
    """First attempts, each capped at the length that its text predicts where the weights know no end."""
    return [
        Request(item.utterance, item.seed, config.sampling, engine.precision, engine.max_tokens(item.predicted_s))
        for item in planned
    ]
