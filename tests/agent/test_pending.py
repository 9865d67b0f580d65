"""What waits: merging never changes a sum, and the bounds hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aiocop.shipping.fit import fit_event
from aiocop.shipping.loop_deltas import merge_loops
from aiocop.shipping.pending import MAX_CAPTURES, MINUTE_MS, PendingEvents, PendingWindow, PendingWindows, merge_deltas
from aiocop_wire import BIN_COUNT, Capture, Frame, LoopDelta, Report, SiteDelta, SlowEvent, decode, encode
from aiocop_wire.limits import MAX_CAPTURED_TRACES, MAX_MESSAGE_BYTES

_deltas = st.builds(
    SiteDelta,
    site_id=st.integers(0, 5),
    count=st.integers(0, 2**32 - 1),
    slow_count=st.integers(0, 2**32 - 1),
    blocked_us=st.integers(0, 2**50),
    max_us=st.integers(0, 2**50),
    bins=st.dictionaries(st.integers(0, BIN_COUNT - 1), st.integers(1, 1000), max_size=4).map(
        lambda bins: tuple(part for pair in sorted(bins.items()) for part in pair)
    ),
)
_windows = st.lists(st.lists(_deltas, max_size=5, unique_by=lambda delta: delta.site_id).map(tuple), max_size=12)


def _sums(deltas):
    sums = {}
    for delta in deltas:
        one = sums.setdefault(delta.site_id, [0, 0, 0, 0, [0] * BIN_COUNT])
        one[0] += delta.count
        one[1] += delta.slow_count
        one[2] += delta.blocked_us
        one[3] = max(one[3], delta.max_us)
        for at in range(0, len(delta.bins), 2):
            one[4][delta.bins[at]] += delta.bins[at + 1]
    return sums


@settings(max_examples=80, deadline=None)
@given(_windows)
def test_merging_keeps_every_sum(windows):
    merged = ()
    for deltas in windows:
        merged = merge_deltas(merged, deltas)
    assert _sums(merged) == _sums([delta for deltas in windows for delta in deltas])
    assert all(delta.count < 2**32 and delta.slow_count < 2**32 for delta in merged)


@settings(max_examples=80, deadline=None)
@given(_windows, st.lists(st.integers(0, 3), min_size=12, max_size=12), st.integers(1, 5), st.integers(1, 20))
def test_the_queue_is_bounded_in_order_and_loses_nothing(windows, steps, max_windows, max_deltas):
    queue = PendingWindows(max_windows=max_windows, max_deltas=max_deltas)
    minute = 1000
    for deltas, step in zip(windows, steps, strict=False):
        minute += step
        queue.add(PendingWindow(minute * MINUTE_MS + 1, minute * MINUTE_MS + 500, deltas))
    taken = []
    assert len(queue) <= max_windows
    while queue:
        taken.append(queue.oldest())
        queue.remove_oldest()
    assert len(taken) <= 1 or sum(len(window.deltas) for window in taken) <= max_deltas
    assert [window.minute for window in taken] == sorted({window.minute for window in taken})
    assert all(window.started_at_ms % MINUTE_MS + window.span_ms <= MINUTE_MS for window in taken)
    assert _sums([delta for window in taken for delta in window.deltas]) == _sums(
        [delta for deltas in windows for delta in deltas]
    )


def test_events_past_the_bound_are_sampled_evenly():
    queue = PendingEvents(max_events=100)
    events = [SlowEvent(number, 1, 1, "io", 0) for number in range(10_000)]
    dropped = sum(queue.add([event]) for event in events)
    kept = queue.pop_all()
    assert (len(kept), dropped) == (100, 9_900)
    # A sample that kept the first ones only, or the last ones only, would have a mean near 50 or near 9950. The mean of
    # 100 even draws from 10 000 has a standard deviation of 289.
    assert 3_000 < sum(event.started_at_ms for event in kept) / 100 < 7_000
    assert len(queue) == 0
    assert queue.add(events[:100]) == 0


def _loop(number: int, observed_us: int = 1000) -> LoopDelta:
    return LoopDelta(number, f"thread-{number}", "asyncio", observed_us, 5, 1, 1, 3, number, 7, number, (2, 1))


def test_loops_of_windows_of_one_minute_add_up():
    windows = PendingWindows()
    for second in range(3):
        windows.add(PendingWindow(second * 1000, second * 1000 + 1000, (), (_loop(1), _loop(2))))
    assert not windows.presses()
    (first, second) = windows.oldest().loops
    assert first == LoopDelta(1, "thread-1", "asyncio", 3000, 15, 3, 3, 9, 1, 21, 1, (2, 3))
    assert (second.number, second.lag_max_us) == (2, 2)
    windows.add(PendingWindow(MINUTE_MS, MINUTE_MS + 1000, (), (_loop(1),)))
    assert windows.presses()
    windows.remove_oldest()
    assert not windows.presses()
    windows.add(PendingWindow(MINUTE_MS, MINUTE_MS + 2000, (SiteDelta(1, 1, 0, 1, 1),)))
    assert windows.presses()
    assert windows.oldest().loops == (_loop(1),)


def test_loops_beyond_the_limit_are_one():
    merged = merge_loops([_loop(number) for number in range(1, 101)])
    assert len(merged) == 64
    (others,) = [loop for loop in merged if loop.number == 0]
    assert (others.thread_name, others.loop, others.observed_us) == ("", "", 37_000)
    assert sum(loop.observed_us for loop in merge_loops([*merged, *merged])) == 200_000


def test_captures_are_no_part_of_the_sample_and_bounded_all_the_same():
    pending = PendingEvents(max_events=2)
    captured = [SlowEvent(number, 1, 1, "io", 1, capture=Capture(number + 1)) for number in range(MAX_CAPTURES)]
    plain = [SlowEvent(number, 1, 1, "io", 1) for number in range(20)]
    assert pending.add([*plain, *captured]) == 18
    assert pending.add(captured[:1]) == 1  # one too many: as any other
    assert len(pending) == MAX_CAPTURES + 2
    assert list(pending.pop_all()[:MAX_CAPTURES]) == captured
    assert (len(pending), pending.pop_all()) == (0, ())


def test_the_largest_capture_fits_one_message():
    frames = tuple(Frame("\U0001f40c" * 5000, number, "\U0001f40c" * 5000) for number in range(200))
    event = fit_event(SlowEvent(1, 1, 1, "io", 1, capture=Capture(1, (), (frames,) * MAX_CAPTURED_TRACES)))
    data = encode(Report(1, 1, 1, slow_events=(event,)))
    assert len(data) < MAX_MESSAGE_BYTES
    assert decode(data).slow_events == (event,)
