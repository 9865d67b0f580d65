"""Ranges of sequences against a plain set."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aiocop_collector.store.delivery import MAX_RANGES, Delivery, Ranges


@given(st.lists(st.integers(1, 200)))
def test_ranges_are_a_set(numbers):
    ranges, expected = Ranges(), set()
    for number in numbers:
        assert ranges.add(number) == (number not in expected)
        expected.add(number)
    pairs = ranges.pairs()
    assert {number for first, last in pairs for number in range(first, last + 1)} == expected
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(pairs))
    assert ranges.highest == max(expected, default=0)
    assert Ranges(pairs).pairs() == pairs


@given(st.lists(st.integers(1, 10_000), max_size=600), st.integers(0, 12_000))
def test_received_and_lost_are_what_was_sent(numbers, last_sequence):
    delivery = Delivery()
    admitted = [number for number in numbers if delivery.admit_unordered(number)]
    delivery.bid_farewell(last_sequence)
    assert len(set(admitted)) == len(admitted) == delivery.received
    assert delivery.received + delivery.lost == max([last_sequence, *numbers])
    assert delivery.received + delivery.duplicated == len(numbers)
    assert len(delivery.ranges.pairs()) <= MAX_RANGES
