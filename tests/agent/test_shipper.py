"""The shipper over a Unix socket: what arrives, what flush and stop promise, and what they leave behind."""

import logging
import os
import threading
import time

import pytest
from tests.support.counting_source import CountingSource
from tests.support.shipping import assert_balanced, make_shipper, open_descriptors, running_shipper, shipper_threads
from tests.support.waiting import wait_until
from tests.support.wire_peer import Manner, Store, UnixPeer

from aiocop.shipping.report_source import Window
from aiocop_wire import FrameReader, Report, decode
from aiocop_wire.limits import MAX_MESSAGE_BYTES


@pytest.fixture
def source():
    return CountingSource()


@pytest.fixture
def socket_path(tmp_path):
    return tmp_path / "c.sock"


def test_flush_says_true_once_everything_counted_before_is_committed(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        for site in range(20):
            source.count(site, times=site + 1)
        source.slow_event(3)
        assert shipper.flush(30)
        assert peer.store.counts == source.totals
        assert [event.elapsed_us for event in peer.store.slow_events] == [50_000]
        statistics = shipper.statistics()
        assert statistics.acknowledged == statistics.recorded == 210
        assert (statistics.pending, statistics.slow_events_acknowledged, statistics.slow_events_pending) == (0, 1, 0)
        assert_balanced(statistics)


def test_every_site_is_defined_on_its_connection_before_it_is_counted(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        for _ in range(3):
            source.count(1)
            source.count(2)
            assert shipper.flush(30)
            peer.drop_connections()
        assert shipper.flush(30)
        assert peer.connections >= 3
        assert peer.store.undefined == set()


def test_a_definition_crosses_a_connection_once(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        for _ in range(4):
            source.count(1)
            assert shipper.flush(30)
        kinds = [type(decode(data)).__name__ for data in peer.received_frames]
        assert kinds.count("Define") == 1
        assert kinds.count("Report") >= 4


def test_it_ships_every_interval_without_being_asked(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path):
        source.count(1, times=5)
        wait_until(lambda: peer.store.total == 5, "the first window")
        source.count(1, times=6)
        wait_until(lambda: peer.store.total == 11, "the next window")


def test_an_idle_agent_sends_a_heartbeat_with_its_health(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path):
        wait_until(lambda: peer.store.reports, "a report without counts")
        assert peer.store.reports[0].deltas == ()
        assert peer.store.reports[0].health.slices == 7


def test_stop_flushes_says_farewell_and_leaves_nothing(source, socket_path):
    before = open_descriptors()
    with UnixPeer(socket_path) as peer:
        shipper = make_shipper(source, socket_path, interval_s=60)
        shipper.start()
        source.count(1, times=5)
        assert shipper.stop(30)
        wait_until(lambda: peer.store.farewells, "the farewell")
        assert peer.store.total == 5
        assert peer.store.farewells[0].last_sequence == peer.store.reports[-1].sequence
        assert shipper.statistics().connection == "stopped"
    assert shipper_threads() == []
    assert open_descriptors() == before


def test_stopping_twice_and_starting_afterwards_is_harmless(source, socket_path):
    with UnixPeer(socket_path):
        shipper = make_shipper(source, socket_path)
        shipper.start()
        shipper.start()
        assert len(shipper_threads()) == 1
        assert shipper.stop(30)
        assert shipper.stop(30)
        shipper.start()
        assert shipper_threads() == []
        assert shipper.flush(30) is False


def test_a_shipper_that_never_ran_can_be_asked_and_stopped(source, socket_path):
    shipper = make_shipper(source, socket_path)
    source.count(1, times=4)
    assert shipper.statistics().pending == 4
    assert shipper.flush(1) is False
    assert shipper.stop(1) is False


def test_stop_does_not_wait_for_a_collector_that_never_was(source, socket_path, caplog):
    shipper = make_shipper(source, socket_path)
    shipper.start()
    source.count(1)
    started = time.monotonic()
    assert shipper.stop(300) is False
    assert time.monotonic() - started < 100
    assert shipper.statistics().pending == 1


def test_flush_says_false_while_no_acknowledgement_comes(source, socket_path):
    with (
        UnixPeer(socket_path, manner=Manner(acknowledges=False)) as peer,
        running_shipper(source, socket_path) as shipper,
    ):
        source.count(1, times=3)
        assert shipper.flush(0.3) is False
        statistics = shipper.statistics()
        assert (statistics.acknowledged, statistics.pending) == (0, 3)
        assert_balanced(statistics)
        wait_until(lambda: shipper.statistics().shipped == 3, "the report to be written")
        peer.close()


def test_an_unacknowledged_report_goes_again_byte_for_byte(source, socket_path):
    store = Store()
    with (
        UnixPeer(socket_path, store=store, manner=Manner(acknowledges=False)) as first,
        running_shipper(source, socket_path) as shipper,
    ):
        source.count(1, times=3)
        assert shipper.flush(0.3) is False
        first.close()
        source.count(1, times=4)
        with UnixPeer(socket_path, store=store) as second:
            assert shipper.flush(30)
            resent = _reports(second.received_frames)
            for sequence, data in _reports(first.received_frames).items():
                assert resent[sequence] == data
            assert store.counts == source.totals


def test_a_report_that_was_committed_without_an_acknowledgement_is_not_sent_again(source, socket_path):
    store = Store()
    with running_shipper(source, socket_path, interval_s=60) as shipper:
        with UnixPeer(socket_path, store=store, manner=Manner(acknowledges=False)) as first:
            source.count(1, times=3)
            assert shipper.flush(0.3) is False
            wait_until(lambda: len(_reports(first.received_frames)) > 0, "a report")
            # The collector committed it and died before it could say so.
            for data in _reports(first.received_frames).values():
                report = decode(data)
                store.apply(report)
                store.committed[first.hellos[0].identity.instance] = report.sequence
        committed = set(_reports(first.received_frames))
        with UnixPeer(socket_path, store=store) as second:
            assert shipper.flush(30)
            assert committed.isdisjoint(_reports(second.received_frames))
            assert store.counts == source.totals


def test_the_window_of_unacknowledged_reports_is_bounded(source, socket_path):
    with (
        UnixPeer(socket_path, manner=Manner(acknowledges=False)) as peer,
        running_shipper(source, socket_path, interval_s=0.001) as shipper,
    ):
        stop_at = time.monotonic() + 1
        while time.monotonic() < stop_at:
            source.count(1)
        takes = source.takes
        wait_until(lambda: shipper.statistics().reports_sent == 8, "the window to be full")
        source.count(1)
        assert shipper.flush(0.2) is False
        assert len(_reports(peer.received_frames)) == 8
        assert source.takes <= takes + 2  # the rest goes on folding where it is counted
        assert_balanced(shipper.statistics())
        peer.close()


def test_many_sites_are_split_into_messages_that_a_collector_takes(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path, interval_s=60) as shipper:
        for site in range(12_000):
            source.count(site)
        assert shipper.flush(60)
        assert peer.store.counts == source.totals
        assert max(map(len, peer.received_frames)) <= MAX_MESSAGE_BYTES
        assert len({report.started_at_ms for report in peer.store.reports if report.deltas}) == 1


def test_slow_events_beyond_the_queue_are_sampled_and_the_rest_is_counted(source, socket_path):
    for _ in range(3000):
        source.slow_event(1)
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        source.count(1)
        assert shipper.flush(30)
        statistics = shipper.statistics()
        assert statistics.dropped == {"queue_full_events": 2000}
        assert statistics.slow_events_acknowledged == len(peer.store.slow_events) == 1000
        assert_balanced(statistics)  # what was dropped are events; every call arrived
        source.count(1)
        assert shipper.flush(30)
        assert peer.store.reports[-1].dropped == {"queue_full_events": 2000}


def test_the_drops_of_the_source_are_part_of_the_balance_and_of_the_reports(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        source.count(1, times=5)
        source.drop("table_full", 2)
        assert shipper.flush(30)
        statistics = shipper.statistics()
        assert (statistics.recorded, statistics.acknowledged, statistics.pending) == (7, 5, 0)
        assert statistics.dropped == {"table_full": 2}
        assert any(report.dropped == {"table_full": 2} for report in peer.store.reports)


def test_an_event_that_cannot_be_encoded_costs_itself_and_no_count(source, socket_path, caplog):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        source.count(1, times=5)
        source.slow_event(1, task_name=object())
        assert shipper.flush(30)
        assert peer.store.total == 5
        assert shipper.statistics().dropped == {"unencodable_events": 1}
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.ERROR]


def test_a_context_of_any_size_and_type_is_brought_within_the_limits(source, socket_path):
    source.slow_event(
        1,
        context={"n" * 300: "x" * 5000, "big": 10**400, "nan": float("nan"), "odd": object(), 7: 1}
        | {f"k{number}": number for number in range(100)},
        thread_name="t" * 1000,
    )
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        assert shipper.flush(30)
        (event,) = peer.store.slow_events
        assert event.context["n" * 200] == "x" * 1024
        assert event.context["nan"] == "nan"
        assert event.context["odd"] == "object"
        assert event.context["int"] == 1
        assert len(event.context) == 32


class _FailingSource(CountingSource):
    """Fails at its first three takes."""

    def take(self) -> Window:
        if self.takes < 3:
            self.takes += 1
            raise RuntimeError("a mistake in the aggregate")
        return super().take()


def test_an_error_of_ours_is_logged_once_and_costs_no_count(socket_path, caplog):
    source = _FailingSource()
    source.count(1, times=5)
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        wait_until(lambda: peer.store.total == 5, "the counts, in spite of the errors")
        assert "a mistake in the aggregate" in shipper.statistics().last_error
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


class _FlushingSource(CountingSource):
    """Flushes from the shipper's own thread, as a logging handler might."""

    shipper = None
    answers: tuple[bool, ...] = ()

    def take(self) -> Window:
        if self.shipper is not None and not self.answers:
            self.answers = (self.shipper.flush(3600), self.shipper.stop(0))
        return super().take()


def test_a_flush_from_the_thread_itself_does_not_wait_for_itself(socket_path):
    source = _FlushingSource()
    with UnixPeer(socket_path):
        shipper = make_shipper(source, socket_path)
        source.shipper = shipper
        shipper.start()
        wait_until(lambda: source.answers, "the answers")
        assert source.answers[0] is False
        assert shipper.stop(30) is True


def test_flushes_from_many_threads_at_once_are_all_answered(source, socket_path):
    answers = []

    def count_and_flush() -> None:
        for _ in range(20):
            source.count(1)
            answers.append(shipper.flush(60))

    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        threads = [threading.Thread(target=count_and_flush) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 160
        assert peer.store.total == 160


def test_whoever_waits_in_flush_is_told_when_the_shipper_stops(source, socket_path):
    with UnixPeer(socket_path, manner=Manner(acknowledges=False)) as peer:
        shipper = make_shipper(source, socket_path)
        shipper.start()
        source.count(1)
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(shipper.flush(3600)))
        waiter.start()
        wait_until(lambda: shipper.statistics().shipped == 1, "the report to be written")
        assert shipper.stop(0.2) is False
        waiter.join(60)
        assert answers == [False]
        peer.close()


def test_a_fork_leaves_the_parent_undisturbed_and_the_child_with_nothing(source, socket_path):
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path) as shipper:
        source.count(1, times=5)
        assert shipper.flush(30)
        before = open_descriptors()
        shipper.pause()
        assert shipper_threads() == []
        source.count(1, times=2)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                shipper.abandon()
                gone = set(before) - set(open_descriptors())
                code = 0 if len(gone) == 3 else 2  # the pipe's two ends and the socket
            finally:
                os._exit(code)
        shipper.resume()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert shipper.flush(30)
        assert peer.store.total == 7
        assert peer.connections == 1


def test_a_flush_during_a_fork_is_answered_after_it(source, socket_path):
    with UnixPeer(socket_path), running_shipper(source, socket_path) as shipper:
        shipper.pause()
        source.count(1)
        answers = []
        waiter = threading.Thread(target=lambda: answers.append(shipper.flush(60)))
        waiter.start()
        shipper.resume()
        waiter.join()
        assert answers == [True]


def test_pausing_many_times_adds_up_the_cpu_time(source, socket_path):
    with UnixPeer(socket_path), running_shipper(source, socket_path) as shipper:
        used_ns = 0
        for _ in range(5):
            source.count(1)
            assert shipper.flush(30)
            shipper.pause()
            assert shipper.statistics().agent_cpu_ns > used_ns
            used_ns = shipper.statistics().agent_cpu_ns
            shipper.resume()


def _reports(frames: list[bytes]) -> dict[int, bytes]:
    """The bytes of each report by its sequence."""
    reports = {}
    for data in frames:
        message = decode(data)
        if isinstance(message, Report):
            reports[message.sequence] = data
    return reports


def test_the_helper_reads_what_a_stream_holds():
    assert list(FrameReader().feed(b"\0\0\0\1x")) == [b"x"]
