"""Batches of rows of different lengths: padded to a small set of shapes, and how much of that was padding.

Knows no model.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence


def padded_batches(lengths: Sequence[int], limit: int, least_step: int | None) -> Iterator[tuple[list[int], int, int]]:
    """Yield batches, the longest rows first: indices into `lengths`, and the padded shape as rows and length.

    A padded batch has at most `limit` elements, unless it has one row. `least_step` limits the number of shapes: CUDA
    libraries prepare each convolution anew for each shape. None: shapes are not rounded.
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
    """Round up to a multiple of `least_step` or of a larger power of two: at most four values an octave."""
    step = max(2 ** (number.bit_length() - 3), least_step) if number >= 8 else least_step
    return -(-number // step) * step


class PaddingMeter:
    """Counts computed elements and how many of them were padding, by stage. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: Counter[str] = Counter()
        self._computed: Counter[str] = Counter()

    def add(self, stage: str, used: int, computed: int) -> None:
        """Count `computed` rows, frames or slots. `used` of them were not padding."""
        with self._lock:
            self._used[stage] += used
            self._computed[stage] += computed

    def read(self) -> dict[str, float]:
        """The share of padding since the last call, by stage."""
        with self._lock:
            shares = {stage: 1 - self._used[stage] / computed for stage, computed in self._computed.items() if computed}
            self._used.clear()
            self._computed.clear()
        return shares
