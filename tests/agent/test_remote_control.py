"""What a collector may change of an agent, and what not: the real agent, and a peer that says what a test wants."""

import asyncio
import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import wait_until
from tests.support.wire_peer import Manner, UnixPeer

import aiocop
from aiocop_wire import FEATURE_CONTROL, CaptureRequest, Control, Controlled, SlowEvent, place_id

CONTROLS = Manner(features=(FEATURE_CONTROL,))


@contextmanager
def watched(path: Path, *, remote_control: bool | None = True, manner: Manner = CONTROLS) -> Iterator[UnixPeer]:
    """An agent in this process that reports to a peer."""
    with UnixPeer(path, manner=manner) as peer:
        aiocop.start(service="shop", collector=f"unix://{path}", remote_control=remote_control)
        try:
            wait_until(lambda: peer.connections, "the hello")
            yield peer
        finally:
            aiocop.stop(5)


@pytest.fixture
def peer(tmp_path):
    with watched(tmp_path / "c.sock") as told:
        wait_until(lambda: told.controlled, "what is in force")
        yield told


def block(times: int) -> int:
    """Make so many blocking calls on a loop; how many the agent recorded."""

    async def main() -> None:
        for _ in range(times):
            time.sleep(0.0001)
            await asyncio.sleep(0)

    before = aiocop.statistics().recorded
    asyncio.run(main())
    return aiocop.statistics().recorded - before


def in_force(peer: UnixPeer, revision: int) -> Controlled:
    """What the agent says once this revision is in force."""
    return wait_until(
        lambda: next((told for told in peer.controlled[::-1] if told.revision == revision), None),
        f"revision {revision} in force",
    )


def test_an_agent_that_allows_it_says_so_and_what_holds(peer):
    assert peer.hellos[0].features == (FEATURE_CONTROL,)
    assert peer.controlled[0] == Controlled(0, active=True, threshold_us=30_000, trace_depth=32)


def test_off_unless_it_is_allowed(tmp_path):
    with watched(tmp_path / "c.sock", remote_control=None) as peer:
        wait_until(lambda: peer.controlled, "what holds is told all the same")
        assert peer.hellos[0].features == ()
        peer.send(Control(1, active=False, threshold_us=5_000))
        wait_until(lambda: peer.connections == 2, "a message that has no place ends the connection")
        wait_until(lambda: len(peer.controlled) == 2, "what holds on the new one")
        assert peer.controlled[1] == peer.controlled[0]
        assert aiocop.statistics().remote_control.allowed is False
        assert block(7) >= 7


def test_an_older_collector_is_not_told_what_it_does_not_know(tmp_path):
    with watched(tmp_path / "c.sock", manner=Manner()) as peer:
        block(1)
        assert aiocop.flush(30)
        assert (peer.controlled, peer.connections) == ([], 1)


def test_paused_it_counts_nothing_and_stays_connected_and_goes_on_when_told(peer):
    assert block(5) >= 5
    peer.send(Control(1, active=False))
    assert in_force(peer, 1).active is False
    assert block(5) == 0
    assert aiocop.statistics().remote_control.paused
    assert not aiocop.is_monitoring_active()
    assert aiocop.flush(30)
    peer.send(Control(2))
    assert in_force(peer, 2).active is True
    assert block(5) >= 5
    assert aiocop.flush(30)
    assert peer.connections == 1
    assert peer.store.total == aiocop.statistics().recorded


def test_what_the_process_switched_off_stays_off(peer):
    aiocop.deactivate()
    peer.send(Control(1, active=True))
    assert in_force(peer, 1).active is False
    assert block(3) == 0
    aiocop.activate()
    assert block(3) >= 3
    peer.send(Control(2, active=False))
    assert in_force(peer, 2).active is False
    aiocop.activate()
    assert block(3) == 0


def test_a_threshold_is_changed_and_given_back(peer):
    peer.send(Control(1, threshold_us=5_000))
    assert in_force(peer, 1).threshold_us == 5_000
    assert aiocop.get_slow_task_threshold_ms() == 5
    peer.send(Control(2))
    assert in_force(peer, 2).threshold_us == 30_000
    peer.send(Control(3, threshold_us=7_000))
    in_force(peer, 3)
    aiocop.stop(5)
    assert aiocop.get_slow_task_threshold_ms() == 30


@pytest.mark.parametrize("threshold_us", [0, 999, 600_000_001, 2**62])
def test_what_is_out_of_bounds_is_refused_and_counted_and_the_rest_taken(peer, threshold_us):
    peer.send(Control(1, threshold_us=threshold_us, trace_depth=7))
    told = in_force(peer, 1)
    assert (told.threshold_us, told.trace_depth) == (30_000, 7)
    assert f"threshold_us {threshold_us}" in told.refused
    peer.send(Control(2, threshold_us=5_000, trace_depth=65))
    told = in_force(peer, 2)
    assert (told.threshold_us, told.trace_depth) == (5_000, 32)
    assert "trace_depth 65" in told.refused
    assert aiocop.statistics().remote_control.refused == 2


def test_an_older_revision_is_refused(peer):
    peer.send(Control(7, threshold_us=5_000))
    in_force(peer, 7)
    peer.send(Control(6, threshold_us=9_000))
    wait_until(lambda: aiocop.statistics().remote_control.refused == 1, "it is counted")
    assert aiocop.get_slow_task_threshold_ms() == 5


def test_settings_outlive_the_connection_but_not_a_collector_that_controls_nobody(tmp_path):
    path = tmp_path / "c.sock"
    with watched(path) as peer:
        peer.send(Control(9, threshold_us=5_000))
        in_force(peer, 9)
        peer.drop_connections()
        wait_until(lambda: peer.connections == 2, "it comes back")
        assert wait_until(lambda: peer.controlled[-1], "it tells").revision == 9
        peer.send(Control(3, threshold_us=6_000))  # of another store: its revisions are its own
        assert in_force(peer, 3).threshold_us == 6_000
        peer.close()
        with UnixPeer(path, manner=Manner()) as older:
            wait_until(lambda: older.connections, "it comes to the older one")
            wait_until(lambda: aiocop.get_slow_task_threshold_ms() == 30, "its own settings")


class _Slow:
    def __deepcopy__(self, _memo: object) -> "_Slow":
        time.sleep(0.05)
        return self


def test_traces_are_kept_as_deep_as_wanted(peer):
    nested: object = _Slow()
    for _ in range(30):
        nested = [nested]

    async def main() -> None:
        copy.deepcopy(nested)

    def library_frames(depth: int) -> int:
        """In a trace that was kept after the change: the standard library's frames between the application's."""
        peer.traces.clear()
        asyncio.run(main())
        assert aiocop.flush(30)
        trace = next(one for one in peer.traces if one.frames[0].function.endswith("__deepcopy__"))
        return sum(frame.path == "copy.py" for frame in trace.frames)

    assert library_frames(32) == 31  # and the call site's own frame
    for revision, depth in ((1, 5), (2, 50)):
        peer.send(Control(revision, trace_depth=depth))
        in_force(peer, revision)
        assert library_frames(depth) == depth - 1


def test_one_line_tells_that_settings_came_from_afar(peer, caplog):
    with caplog.at_level("INFO", logger="aiocop"):
        peer.send(Control(1))
        in_force(peer, 1)
        assert caplog.messages == []
        for revision in (2, 3):
            peer.send(Control(revision, active=False, threshold_us=revision * 1_000))
            in_force(peer, revision)
    (line,) = caplog.messages
    assert "paused, threshold 2 ms, revision 2" in line


def naps(seconds: float) -> None:
    time.sleep(seconds)


def computes(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(1_000))


def run_slices(*calls: tuple[Callable[[float], None], float]) -> None:
    """Each call in a slice of its own; everything delivered."""

    async def main() -> None:
        for function, seconds in calls:
            await asyncio.sleep(0)
            function(seconds)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert aiocop.flush(30)


def captures(peer: UnixPeer) -> dict[int, SlowEvent]:
    return {event.capture.request_id: event for event in peer.store.slow_events if event.capture is not None}


def the_place(peer: UnixPeer, function: str) -> tuple[str, str]:
    """Path and function of a call site as this agent names them."""
    return next(
        (frame.path, frame.function) for trace in peer.traces for frame in trace.frames if frame.function == function
    )


def test_a_capture_is_the_next_slow_slice_of_the_function_in_detail_and_only_that(peer):
    run_slices((naps, 0.05))
    path, function = the_place(peer, "naps")
    peer.send(Control(1, captures=(CaptureRequest(77, place_id(path, function)),)))
    in_force(peer, 1)
    run_slices((computes, 0.05), (naps, 0.005), (naps, 0.06), (naps, 0.07))
    assert captures(peer).keys() == {77}
    event = captures(peer)[77]
    assert event.elapsed_us >= 60_000
    (call,) = [moment for moment in event.capture.moments if moment.blocked_us >= 0]
    assert call.blocked_us >= 60_000
    assert call.site_id == event.sites[0].site_id
    functions = [frame.function for frame in event.capture.traces[call.trace]]
    assert functions[0] == "naps"
    assert functions[-1] == "run_slices.<locals>.main"
    assert aiocop.statistics().remote_control.captured == 1
    peer.send(Control(2, captures=(CaptureRequest(77, place_id(path, function)),)))  # not stored yet, so asked again
    in_force(peer, 2)
    run_slices((naps, 0.05))
    assert len([event for event in peer.store.slow_events if event.capture is not None]) == 1


def test_a_capture_of_what_no_wrapper_sees_shows_the_looks_of_the_watchdog(peer):
    run_slices((naps, 0.05))
    path, _ = the_place(peer, "naps")
    peer.send(Control(1, captures=(CaptureRequest(5, place_id(path, "computes")),)))
    in_force(peer, 1)

    def looked_at() -> SlowEvent | None:
        run_slices((computes, 0.15))  # on a busy host the watchdog may get no CPU meanwhile
        return captures(peer).get(5)

    event = wait_until(looked_at, "a capture with looks")
    assert {moment.blocked_us for moment in event.capture.moments} == {-1}
    assert any(frame.function == "computes" for frames in event.capture.traces for frame in frames)


def test_a_capture_that_is_not_wanted_any_more_is_forgotten(peer):
    run_slices((naps, 0.05))
    place = place_id(*the_place(peer, "naps"))
    peer.send(Control(1, captures=(CaptureRequest(9, place),)))
    in_force(peer, 1)
    peer.send(Control(2))
    in_force(peer, 2)
    run_slices((naps, 0.05))
    assert captures(peer) == {}
