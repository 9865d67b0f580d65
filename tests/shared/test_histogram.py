"""The histogram's promises: within 0.1 ms below 1 ms, within 10 % from there on, and merging is adding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocop_wire import BIN_COUNT, REPRESENTATIVES_MS, UPPER_EDGES_NS, add_sparse, bin_of, percentile_ms, to_sparse

_ONE_MS_NS = 1_000_000
_LONGEST_NS = UPPER_EDGES_NS[-1] - 1
durations_ns = st.integers(0, _LONGEST_NS) | st.integers(0, 2 * _ONE_MS_NS) | st.sampled_from(UPPER_EDGES_NS[:-1])


def _close(estimate_ms: float, true_ms: float) -> bool:
    error_ms = abs(estimate_ms - true_ms)
    return error_ms <= 0.1 + 1e-9 if true_ms < 1 else error_ms <= 0.1 * true_ms


@given(durations_ns)
def test_what_stands_for_a_duration_is_close_to_it(duration_ns):
    assert _close(REPRESENTATIVES_MS[bin_of(duration_ns)], duration_ns / 1e6)


@pytest.mark.parametrize("edge_ns", UPPER_EDGES_NS)
def test_an_edge_belongs_to_the_bin_above_it(edge_ns):
    index = UPPER_EDGES_NS.index(edge_ns)
    assert bin_of(edge_ns - 1) == index
    assert bin_of(edge_ns) == index + 1


def test_the_edges_are_the_constants_of_version_1():
    """Stored histograms and other agents rely on these. A change is a new protocol version."""
    assert (BIN_COUNT, len(UPPER_EDGES_NS)) == (86, 85)
    assert UPPER_EDGES_NS[:10] == (
        200_000,
        400_000,
        600_000,
        800_000,
        1_000_000,
        1_189_207,
        1_414_214,
        1_681_793,
        2_000_000,
        2_378_414,
    )
    assert UPPER_EDGES_NS[-1] == 2**20 * _ONE_MS_NS
    assert [edge for edge in UPPER_EDGES_NS if edge % _ONE_MS_NS == 0] == [2**power * _ONE_MS_NS for power in range(21)]


@given(st.lists(durations_ns, min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_close_to_the_true_one(durations, fraction):
    bins = [0] * BIN_COUNT
    for duration_ns in durations:
        bins[bin_of(duration_ns)] += 1
    true_ns = sorted(durations)[int(fraction * (len(durations) - 1))]
    assert _close(percentile_ms(bins, fraction), true_ns / 1e6)


@given(st.lists(durations_ns, min_size=1, max_size=50))
def test_no_percentile_is_above_the_maximum(durations):
    bins = [0] * BIN_COUNT
    for duration_ns in durations:
        bins[bin_of(duration_ns)] += 1
    max_ms = max(durations) / 1e6
    assert percentile_ms(bins, 1.0, max_ms=max_ms) <= max_ms


def test_the_maximum_stands_for_what_is_longer_than_the_last_bin():
    bins = [0] * BIN_COUNT
    bins[bin_of(10 * 3600 * 10**9)] = 1
    assert percentile_ms(bins, 0.5, max_ms=36_000_000.0) == 36_000_000.0


def test_nothing_recorded_has_no_percentile():
    assert percentile_ms([0] * BIN_COUNT, 0.5) is None


dense = st.lists(st.integers(0, 1000), min_size=BIN_COUNT, max_size=BIN_COUNT)


@given(dense, dense)
def test_merging_is_adding(one, other):
    merged = list(one)
    add_sparse(merged, to_sparse(other))
    assert merged == [a + b for a, b in zip(one, other, strict=True)]
