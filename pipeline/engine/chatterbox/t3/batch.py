"""Continuous batching: any number of prompts through a decoder's slots. A freed slot takes the next prompt."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.data import never
from pipeline.device.padding import PaddingMeter
from pipeline.engine.chatterbox.t3.decoder import Decoded, Decoder
from pipeline.engine.chatterbox.t3.slots import Prompt


def decode(
    decoder: Decoder,
    prompts: Iterable[Prompt],
    stopping: Callable[[], bool] = never,
    meter: PaddingMeter | None = None,
) -> Iterator[Sequence[Decoded]]:
    """Yield the results of prompts that have ended: after each step, and after most steps there are none.

    Prompts enter in the given order; longest first wastes least.

    `stopping` is asked between steps: if true, prompts that have not ended are dropped. `meter` counts idle slots.
    """
    waiting = deque(prompts)
    decoder.take(list(decoder.prompts))  # left over if an earlier call was abandoned
    ended: list[int] = []
    while not stopping():
        free = decoder.size - len(decoder.prompts) + len(ended)
        if free >= min(decoder.group, len(waiting)):
            yield decoder.take(ended)
            decoder.fill([waiting.popleft() for _ in range(min(free, len(waiting)))])
        if not decoder.prompts:
            return
        if meter:
            meter.add("idle slots", len(decoder.prompts) - len(ended), decoder.size)
        ended = decoder.step()
        yield []
    yield decoder.take(ended)
