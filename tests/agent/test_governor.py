"""The agent keeps to its budget: it gives up detail when it costs too much, never a count, and takes it back."""

import asyncio
import gc
import itertools
import logging
import os
import time
from functools import partial

import pytest
from tests.support.detecting import line_of
from tests.support.wire_peer import UnixPeer

import aiocop
from aiocop.api import _agent
from aiocop.calibration import calibrate
from aiocop.detail import COUNTS, NOTHING_NEW, SHORT_WALKS
from aiocop.governor import NO_ACTIVITY
from aiocop.pacing import HIGHEST_LEVEL, Pacing

BUDGET = 0.01


def levels(pacing: Pacing, *shares: float) -> list[int]:
    """The level after each tick with such a share, all of which could be saved."""
    return [pacing.level for share in shares if pacing.tick(share, share, share, 1.0) or True]


# --- when -------------------------------------------------------------------------------------------------------------


def test_a_burst_is_forgiven():
    assert levels(Pacing(BUDGET), 0.0, 0.04, 0.0, 0.0, 0.0, 0.04, 0.0) == [0] * 7


def test_what_lasts_costs_one_level_at_a_time():
    assert levels(Pacing(BUDGET), *[0.1] * 5) == [1, 2, 3, 3, 3]
    slowly = levels(Pacing(BUDGET), *[0.015] * 40)
    assert slowly[5] == 0
    assert slowly[-1] == HIGHEST_LEVEL
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(slowly))


def test_at_the_budget_nothing_changes():
    assert set(levels(Pacing(BUDGET), *[BUDGET] * 1000)) == {0}


def test_what_no_level_can_save_changes_nothing():
    pacing = Pacing(BUDGET)
    assert not any(pacing.tick(0.5, 0.5, 0.1 * BUDGET, 1.0) for _ in range(100))


def test_calm_gives_back_one_level_at_a_time():
    pacing = Pacing(BUDGET)
    levels(pacing, 0.1, 0.1, 0.1)
    assert levels(pacing, *[0.001] * 15) == [3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 0]


def test_a_level_is_not_given_back_where_the_one_before_would_be_too_dear():
    pacing = Pacing(BUDGET)
    levels(pacing, 0.1)
    assert not any(pacing.tick(0.001, 0.006, 0.006, 1.0) for _ in range(100))


def test_a_lasting_storm_that_a_level_hides_makes_it_flap_ever_more_rarely():
    """At level 1 nothing is to be seen of it, at level 0 it is too much."""
    pacing = Pacing(BUDGET)
    seen = [pacing.level]
    for _ in range(4000):
        share = 0.0 if pacing.level else 0.1
        pacing.tick(share, share, share, 1.0)
        seen.append(pacing.level)
    changes = [tick for tick in range(1, len(seen)) if seen[tick] != seen[tick - 1]]
    assert len(changes) < 40
    assert changes[-1] - changes[-2] > 300 or changes[-2] - changes[-3] > 300
    assert levels(pacing, *[0.0] * 330)[-1] == 0


def test_without_a_budget_the_level_stays():
    assert set(levels(Pacing(0.0), *[1.0] * 100)) == {0}


def test_less_detail_is_reckoned_to_cost_less():
    unit = calibrate()
    deep = NO_ACTIVITY._replace(slices=10, calls=1000, library_calls=1000, frames=20_000)
    costs = [deep.cost_ns(level, unit) for level in range(HIGHEST_LEVEL + 1)]
    assert costs[0] > costs[1] == costs[2] > costs[3] > 0
    assert deep.reducible_ns(0, unit) > 0
    assert deep.since(deep) == NO_ACTIVITY


# --- what -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def only_short_calls(monkeypatch):
    """On a busy machine any call may take a millisecond: not here."""
    for module in ("calls", "slice"):
        monkeypatch.setattr(f"aiocop.{module}.LONG_CALL_NS", 1 << 62)


@pytest.fixture
def slow_events():
    """An agent that counts and ships nothing, and the events it delivers."""
    events: list[aiocop.SlowTaskEvent] = []
    _agent.start("shop", ship=False, overhead_budget_percent=0, on_slow_task=events.append)
    try:
        yield events
    finally:
        aiocop.stop(0)
        aiocop.clear_slow_task_callbacks()


def counted() -> dict[tuple[str, str], int]:
    """Calls by operation and call site; not what a busy machine adds by making any slice a slow one."""
    found: dict[tuple[str, str], int] = {}
    for thread in _agent._slices.threads.values():
        for counters in thread.by_site.values():
            key = (counters.site.definition.operation, counters.site.call_site)
            if key[0] not in ("cpu", "wait", "gc"):
                found[key] = found.get(key, 0) + counters.count
    return found


def place(function, text: str) -> str:
    return f"{__name__.replace('.', '/')}.py:{line_of(function, text)}:{function.__qualname__}"


def library(depth: int):
    """A function of a library that makes a blocking call so many frames deep."""
    namespace = {"__name__": "somelib.deep", "os": os}
    text = "def call(depth):\n    return os.getcwd() if depth <= 1 else call(depth - 1)\n"
    exec(compile(text, "/x/site-packages/somelib/deep.py", "exec"), namespace)
    return partial(namespace["call"], depth)


def one(call):
    call()


def other(call):
    call()


def run(*callbacks) -> None:
    """As one slice each."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for callback in callbacks:
            loop.call_soon(callback)
        await asyncio.sleep(0)

    asyncio.run(main())


def at_level(level: int, *callbacks) -> dict[tuple[str, str], int]:
    """What these add to the counts at this level."""
    before = counted()
    _agent._slices.level = level
    run(*callbacks)
    return {key: count - before.get(key, 0) for key, count in counted().items() if count > before.get(key, 0)}


def test_short_walks_find_the_call_site_of_shallow_stacks_always(slow_events):
    def calls():
        for _ in range(50):
            one(os.getcwd)
            other(library(3))

    assert at_level(SHORT_WALKS, calls) == {
        ("os.getcwd", place(one, "call()")): 50,
        ("os.getcwd", place(other, "call()")): 50,
    }


def test_short_walks_divide_the_calls_of_deep_stacks_among_their_call_sites(slow_events):
    deep = library(12)

    def calls():
        for _ in range(1700):
            one(deep)
            other(deep)

    added = at_level(SHORT_WALKS, calls)
    assert sum(added.values()) == 3400
    assert added.keys() == {("os.getcwd", place(one, "call()")), ("os.getcwd", place(other, "call()"))}
    assert all(1500 < count < 1900 for count in added.values()), added


def test_what_is_known_stays_apart_and_what_is_new_is_counted_by_operation(slow_events, only_short_calls):
    deep = library(12)
    run(lambda: one(os.getcwd), lambda: one(deep))
    assert at_level(NOTHING_NEW, lambda: one(os.getcwd), lambda: one(deep), lambda: other(os.getcwd)) == {
        ("os.getcwd", place(one, "call()")): 2,
        ("os.getcwd", "<other>"): 1,
    }


def test_counts_only(slow_events, only_short_calls):
    run(lambda: one(os.getcwd))

    def calls():
        for _ in range(40):
            one(os.getcwd)
            other(library(12))
            open(os.devnull).close()

    added = at_level(COUNTS, calls)
    assert added.pop(("open", "<other>")) == 40
    assert added == {("os.getcwd", "<other>"): 80}
    slow_events.clear()
    run(calls)
    assert [event for event in slow_events if not event.exceeded_threshold] == []


def test_a_long_call_is_looked_at_whatever_the_level(slow_events):
    def naps():
        time.sleep(0.06)

    added = at_level(COUNTS, naps)
    assert added == {("time.sleep", place(naps, "time.sleep")): 1}
    (event,) = [event for event in slow_events if event.exceeded_threshold]
    assert (event.call_site, event.cause) == (place(naps, "time.sleep"), "wait")
    (call,) = event.blocking_events
    assert call["event"] == "time.sleep(0.06)"
    assert 60 <= call["duration_ms"] <= event.elapsed_ms


def test_a_freeze_of_many_short_calls_is_blamed_on_their_line(slow_events):
    def storms():
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            os.getcwd()

    at_level(COUNTS, storms)
    (event,) = [event for event in slow_events if event.exceeded_threshold]
    assert event.call_site.endswith(f":{storms.__qualname__}")


def test_rules_and_blocks_that_allow_hold(slow_events, only_short_calls):
    def calls():
        os.getcwd()
        with aiocop.allow_blocking():
            os.stat("/")
        os.stat("/")

    rule = aiocop.allow(operation="os.getcwd")
    try:
        assert at_level(COUNTS, calls) == {("os.stat", "<other>"): 1}
        assert at_level(NOTHING_NEW, calls) == {("os.stat", "<other>"): 1}
        assert rule.matches == 2
    finally:
        aiocop.disallow(rule)


def test_who_asked_for_exceptions_gets_them(slow_events):
    raised = []

    def calls():
        with aiocop.raise_on_violations(at_call=True):
            try:
                time.sleep(0)
            except aiocop.HighSeverityBlockingIoException as error:
                raised.append(error.events[0]["event"])

    at_level(COUNTS, calls)
    assert raised == ["time.sleep(0)"]


# --- all of it --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    """A governor that looks ten times as often."""
    monkeypatch.setattr(_agent._governor, "tick_ns", 100_000_000)


async def storm_until(condition) -> int:
    """Make blocking calls until something holds; how many."""
    calls = 0
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        for _ in range(200):
            os.getcwd()
            os.stat("/")
        calls += 400
        await asyncio.sleep(0)
    return calls


async def calm_until(condition) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.05)


def overhead():
    return aiocop.statistics().overhead


def test_a_storm_costs_detail_and_no_count_and_when_it_is_over_detail_comes_back(tmp_path, hasty, caplog):
    caplog.set_level(logging.INFO, logger="aiocop")
    gc.collect()  # what other tests left is not closed on this loop, which would be a blocking call more
    path = tmp_path / "c.sock"
    with UnixPeer(path) as peer:
        aiocop.start("shop", collector=f"unix://{path}", threshold_ms=60_000, overhead_budget_percent=0.05)

        async def main() -> int:
            calls = await storm_until(lambda: overhead().level == HIGHEST_LEVEL)
            assert overhead().share > 0.0005 == overhead().budget
            calls += await storm_until(lambda: any(told.level == HIGHEST_LEVEL for told in reported(peer)))
            assert aiocop.statistics().recorded == calls
            await calm_until(lambda: overhead().level == 0)
            return calls

        try:
            calls = asyncio.run(main())
            run(os.getcwd)  # so that there is something to report
            calls += 1
            after = overhead()
            assert (after.level, after.reductions) == (0, HIGHEST_LEVEL)
            assert after.since > 0
            assert aiocop.flush(30)
            last = aiocop.statistics()
            assert (last.recorded, last.acknowledged, last.pending, last.dropped, last.faults) == (
                calls,
                calls,
                0,
                {},
                0,
            )
            assert reported(peer)[-1].level == 0
            assert peer.store.total == calls
        finally:
            aiocop.stop(5)
    said = [record for record in caplog.records if "loop's time" in record.getMessage()]
    assert [record.levelname for record in said] == ["WARNING", "INFO"]


def reported(peer: UnixPeer) -> list:
    return [report.health.overhead for report in list(peer.store.reports) if report.health.overhead is not None]


def test_a_budget_that_nothing_exceeds_leaves_all_detail(hasty):
    _agent.start("shop", ship=False, overhead_budget_percent=100)
    try:
        shares = set()

        def seen_nine() -> bool:
            shares.add(overhead().share)
            return len(shares) > 8

        asyncio.run(storm_until(seen_nine))
        assert (overhead().level, overhead().reductions, overhead().since) == (0, 0, 0)
        assert max(shares) > 0
    finally:
        aiocop.stop(0)


def test_without_a_budget_nothing_is_governed(hasty):
    _agent.start("shop", ship=False, overhead_budget_percent=0)
    try:
        ends_at = time.monotonic() + 0.5  # some ticks
        calls = asyncio.run(storm_until(lambda: time.monotonic() > ends_at))
        assert overhead()._replace(share=0) == (0, 0, 0, 0, 0)
        assert counted()[("os.stat", place(storm_until, "os.stat"))] == calls / 2
    finally:
        aiocop.stop(0)


def test_a_normal_service_keeps_all_detail():
    """A few calls now and then, with the budget that everybody has."""
    _agent.start("shop", ship=False)
    try:
        shares = set()

        async def main() -> None:
            while len(shares) < 3:
                os.stat("/")
                shares.add(overhead().share)
                await asyncio.sleep(0.02)

        asyncio.run(main())
        assert overhead().budget == 0.01
        assert (overhead().level, overhead().reductions) == (0, 0)
    finally:
        aiocop.stop(0)


def test_the_published_functions_set_no_budget():
    assert overhead().budget == 0
