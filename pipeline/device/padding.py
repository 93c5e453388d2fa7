"""Rows of different lengths that are computed together: padded to few shapes, and how much of it was padding.

Knows no model.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence


def padded_batches(lengths: Sequence[int], limit: int, least_step: int | None) -> Iterator[tuple[list[int], int, int]]:
    """Indices of `lengths`, the longest first, and the shape to pad them to: how many rows, and how long.

    A batch with its padding is no larger than `limit`, unless it is one row. With a `least_step` there are few shapes:
    a CUDA library prepares anew for each shape of each convolution.
    """
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while rows:
        count, length = len(rows), lengths[rows[0]]
        if least_step:
            count, length = round_up(count, 1), round_up(length, least_step)
        count = min(count, max(limit // length, 1))
        yield rows[:count], count, length
        rows = rows[count:]


def round_up(number: int, least_step: int) -> int:
    """To one of at most four numbers an octave, which are multiples of `least_step` or more."""
    step = max(2 ** (number.bit_length() - 3), least_step) if number >= 8 else least_step
    return -(-number // step) * step


class PaddingMeter:
    """Counts what is computed and how much of it was padding, by stage. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: Counter[str] = Counter()
        self._computed: Counter[str] = Counter()

    def add(self, stage: str, used: int, computed: int) -> None:
        """`used` of `computed` rows, frames or slots were not padding."""
        with self._lock:
            self._used[stage] += used
            self._computed[stage] += computed

    def read(self) -> dict[str, float]:
        """The share that was padding since the last call, by stage."""
        with self._lock:
            shares = {stage: 1 - self._used[stage] / computed for stage, computed in self._computed.items() if computed}
            self._used.clear()
            self._computed.clear()
        return shares
