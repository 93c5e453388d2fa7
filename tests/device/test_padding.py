"""What is computed together: everybody once, little padding, few shapes."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.device.padding import PaddingMeter, padded_batches


@given(st.lists(st.integers(1, 2000), max_size=60), st.integers(1, 10_000), st.sampled_from([None, 1, 32, 100]))
def test_groups_hold_every_row_once_and_no_more_than_their_limit(lengths, limit, least_step):
    made = list(padded_batches(lengths, limit, least_step))
    assert sorted(row for rows, _, _ in made for row in rows) == list(range(len(lengths)))
    for rows, count, length in made:
        longest = max(lengths[row] for row in rows)
        assert longest <= length < longest + max(longest / 4, least_step or 1)
        assert len(rows) <= count <= 1.25 * len(rows) and (count * length <= limit or count == 1)
        assert least_step or (count, length) == (len(rows), longest)
    ends = [(max(lengths[row] for row in rows), min(lengths[row] for row in rows)) for rows, _, _ in made]
    assert all(least >= most for (_, least), (most, _) in zip(ends, ends[1:], strict=False))


def test_lengths_and_numbers_of_rows_are_few():
    assert len({next(padded_batches([frames], 8192, 32))[2] for frames in range(1, 2001)}) <= 20
    assert len({next(padded_batches([32] * rows, 8192, 32))[1] for rows in range(1, 257)}) <= 30


def test_a_meter_tells_the_share_that_was_padding_and_begins_anew():
    meter = PaddingMeter()
    meter.add("slots", 3, 4)
    meter.add("slots", 1, 4)
    meter.add("rows", 5, 5)
    assert meter.read() == {"slots": 0.5, "rows": 0.0} and meter.read() == {}
