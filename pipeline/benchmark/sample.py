"""The utterances to measure, and the engine's requests for them. Knows no stage."""

import random
from collections.abc import Sequence
from typing import TypeVar

from pipeline.config import SpeechConfig
from pipeline.data import Request
from pipeline.engine.protocol import Engine
from pipeline.plan import Planned, longest_first

T = TypeVar("T")


def draw_sample(planned: Sequence[Planned], count: int, seed: int) -> list[Planned]:
    """`count` random utterances, longest first as in a job's window."""
    chosen = random.Random(seed).sample(planned, min(count, len(planned)))
    return longest_first(chosen)


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at equal distances, from the front to the end."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def make_requests(engine: Engine, planned: Sequence[Planned], config: SpeechConfig) -> list[Request]:
    """First attempts. With weights that never draw the end token, the predicted length is the cap."""
    return [
        Request(item.utterance, item.seed, config.sampling, engine.precision, engine.max_tokens(item.predicted_s))
        for item in planned
    ]
