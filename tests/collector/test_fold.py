"""What a transaction folds, against sums made the slow way: one delta after the other, one bin after the other."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from tests.support.wire_strategies import deltas

from aiocop_collector.store import ids, schema
from aiocop_collector.store.counts import MAX_TOTAL
from aiocop_collector.store.fold import Fold, Reporter, SiteIds
from aiocop_wire import BIN_COUNT, Report, SiteDelta

_NOW_MS = 1_790_000_000_000
_DAY_MS = 86_400_000
_REPORTERS = [
    Reporter("aa" * 16, service_id=1, release_id=10),
    Reporter("bb" * 16, service_id=1, release_id=10),
    Reporter("cc" * 16, service_id=1, release_id=11),
    Reporter("dd" * 16, service_id=2, release_id=20),
]

# Few sites, so that they meet; bins in any order and more than once, as nothing forbids.
_bins = st.lists(st.tuples(st.integers(0, BIN_COUNT - 1), st.integers(1, 2**32 - 1)), max_size=4).map(
    lambda pairs: tuple(part for pair in pairs for part in pair)
)
_deltas = st.builds(
    SiteDelta, st.integers(1, 4), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), _bins
)
_reports = st.tuples(
    st.just(1),
    st.sampled_from([_NOW_MS, _NOW_MS + 1, _NOW_MS + 61_000, _NOW_MS + 4_000_000, _NOW_MS - _DAY_MS]),
    st.sampled_from([0, 1_000, 120_000]),
    st.lists(_deltas | deltas, max_size=4).map(tuple),
).map(lambda fields: Report(*fields))
_told = st.lists(st.tuples(st.sampled_from(_REPORTERS), _reports), max_size=8)


def _fold(told: list[tuple[Reporter, Report]]) -> Fold:
    fold = Fold(SiteIds(), now_ms=_NOW_MS)
    for reporter, report in told:
        fold.add(reporter, report, fold.sighting(reporter, report))
    return fold


def _counted(told: list[tuple[Reporter, Report]]) -> list[tuple[Reporter, int, int, SiteDelta]]:
    """Every delta with its reporter, the second it began in and the store's id of its site."""
    return [
        (reporter, report.started_at_ms // 1000, ids.site_id(reporter.service_id, delta.site_id), delta)
        for reporter, report in told
        for delta in report.deltas
    ]


@given(_told)
def test_rows_are_the_sums_of_the_deltas_at_each_resolution(told):
    fold = _fold(told)
    for resolution, rows in fold.rows(schema.RESOLUTIONS):
        totals: dict = defaultdict(lambda: [0, 0, 0, 0])
        bins: dict = defaultdict(dict)
        for reporter, second, site_id, delta in _counted(told):
            key = (second - second % resolution.seconds, site_id, reporter.release_id)
            row = totals[key]
            row[:3] = row[0] + delta.count, row[1] + delta.slow_count, row[2] + delta.blocked_us
            row[3] = max(row[3], delta.max_us)
            for at in range(0, len(delta.bins), 2):
                bins[key][delta.bins[at]] = bins[key].get(delta.bins[at], 0) + delta.bins[at + 1]
        assert rows.rollups == [(*key, *[min(one, MAX_TOTAL) for one in totals[key]]) for key in sorted(totals)]
        found = {}
        for (first, end), histograms in rows.histograms.items():
            assert histograms == sorted(histograms, key=lambda row: row[:3])
            for row in histograms:
                assert row[:3] not in found
                filled = zip(range(first, end), row[3:], strict=True)
                found[row[:3]] = {index: count for index, count in filled if count}
        assert found == dict(bins)


@given(_told)
def test_sightings_are_the_first_and_the_last_and_of_two_at_once_the_first_and_the_last_that_came(told):
    expected: dict = {}
    for reporter, report in told:
        first_ms, last_ms = report.started_at_ms, report.started_at_ms + min(report.span_ms, 60_000)
        for delta in report.deltas:
            site_id, release_id = ids.site_id(reporter.service_id, delta.site_id), reporter.release_id
            seen = expected.setdefault(site_id, [first_ms, last_ms, release_id, release_id])
            if first_ms < seen[0]:
                seen[0], seen[2] = first_ms, release_id
            if last_ms >= seen[1]:
                seen[1], seen[3] = last_ms, release_id
    fold = _fold(told)
    assert {
        site_id: [seen.first_seen_ms, seen.last_seen_ms, seen.first_release_id, seen.last_release_id]
        for site_id, seen in fold.sightings.items()
    } == expected
    assert fold.service_of == {site_id: reporter.service_id for reporter, _, site_id, _ in _counted(told)}


@given(_told, _told)
def test_presence_is_written_once_and_costs_are_all_that_was_counted(told, later):
    fold = _fold(told)
    present = {(second // 86_400 * 86_400, site_id, who.agent_id) for who, second, site_id, _ in _counted(told)}
    new = fold.presence({})
    assert fold.presence_rows(new) == sorted(present)
    assert fold.presence(new) == {}
    present_later = {(second // 86_400 * 86_400, site_id, who.agent_id) for who, second, site_id, _ in _counted(later)}
    then = _fold(later)
    assert then.presence_rows(then.presence(new)) == sorted(present_later - present)
    seen_by: dict = defaultdict(set)
    for agent_id, site_ids in fold.seen_by():
        seen_by[agent_id] |= site_ids
    assert seen_by == {
        agent_id: {site_id for _, site_id, who in present if who == agent_id} for _, _, agent_id in present
    }
    costs: dict = defaultdict(lambda: (0, 0, 0))
    for _, _, site_id, delta in _counted(told):
        count, slow_count, blocked_us = costs[site_id]
        costs[site_id] = (count + delta.count, slow_count + delta.slow_count, blocked_us + delta.blocked_us)
    assert fold.costs() == costs
    assert fold.minutes() == {second // 60 * 60 for _, second, _, _ in _counted(told)}
