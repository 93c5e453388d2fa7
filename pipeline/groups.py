"""Rows of similar lengths that are computed together, padded to shapes of which there are few. Knows no model."""

from collections.abc import Iterator, Sequence


def groups(lengths: Sequence[int], limit: int, least_step: int | None) -> Iterator[tuple[list[int], int, int]]:
    """Indices of `lengths`, the longest first, and the shape to pad them to: how many rows, and how long.

    With its padding a group is no larger than `limit`, unless it is one row. With a `least_step` shapes are few: a CUDA
    library prepares for each shape of each convolution anew.
    """
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while rows:
        count, length = len(rows), lengths[rows[0]]
        if least_step:
            count, length = rounded_up(count, 1), rounded_up(length, least_step)
        count = min(count, max(limit // length, 1))
        yield rows[:count], count, length
        rows = rows[count:]


def rounded_up(number: int, least_step: int) -> int:
    """To one of at most four numbers an octave, which are multiples of `least_step` or more."""
    step = max(2 ** (number.bit_length() - 3), least_step) if number >= 8 else least_step
    return -(-number // step) * step
