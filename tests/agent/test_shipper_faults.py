"""The shipper against collectors that are away, come and go, or misbehave."""

import logging
import random
import threading
import time

import pytest
from tests.support.counting_source import CountingSource
from tests.support.shipping import assert_balanced, make_shipper, open_descriptors, running_shipper, shipper_threads
from tests.support.waiting import wait_until
from tests.support.wire_peer import Manner, Store, UnixPeer

from aiocop_wire import Ack, Hello, Identity, Welcome, encode, frame

_IDENTITY = Identity(b"0123456789abcdef", 1, "host", "shop")
_MISBEHAVIOURS = {
    "silent": Manner(welcomes=False),
    "does not read": Manner(reads=False),
    "never acknowledges": Manner(acknowledges=False),
    "refuses": Manner(refuses=True),
    "talks http": Manner(answers_with=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "random bytes": Manner(answers_with=bytes(random.Random(1).randbytes(4096))),
    "giant length": Manner(answers_with=b"\xff\xff\xff\xff"),
    "half a message": Manner(answers_with=b"\0\0\0\x20\x92"),
    "not msgpack": Manner(answers_with=frame(b"\xc1\xc1\xc1")),
    "another version": Manner(answers_with=frame(encode(Welcome(0, version=99)))),
    "acknowledges what was never sent": Manner(answers_with=frame(encode(Welcome(0))) + frame(encode(Ack(10**9)))),
    "acknowledges before a welcome": Manner(answers_with=frame(encode(Ack(1)))),
    "says hello": Manner(answers_with=frame(encode(Hello(_IDENTITY)))),
    "welcomes twice": Manner(answers_with=2 * frame(encode(Welcome(0)))),
    "floods": Manner(answers_with=frame(encode(Welcome(0))) + 60_000 * frame(encode(Ack(0)))),
}


@pytest.fixture
def source():
    return CountingSource()


@pytest.fixture
def socket_path(tmp_path):
    return tmp_path / "c.sock"


@pytest.mark.parametrize("manner", _MISBEHAVIOURS.values(), ids=_MISBEHAVIOURS.keys())
def test_no_collector_can_hold_the_shipper_or_lose_a_count(manner, source, socket_path):
    before = open_descriptors()
    store = Store()
    with UnixPeer(socket_path, store=store, manner=manner) as peer:
        shipper = make_shipper(source, socket_path)
        shipper.start()
        source.count(1, times=5)
        wait_until(lambda: peer.hellos or not manner.reads, "the shipper to connect")
        assert shipper.flush(0.2) is False
        assert_balanced(shipper.statistics())
        assert shipper.statistics().acknowledged == 0
        assert store.total == 0
        started = time.monotonic()
        assert shipper.stop(0.5) is False
        assert time.monotonic() - started < 60  # the time-out and a slow machine, not for ever
        peer.close()
    assert shipper_threads() == []
    assert open_descriptors() == before
    assert shipper.statistics().pending == 5


@pytest.mark.parametrize(
    "manner",
    [manner for name, manner in _MISBEHAVIOURS.items() if name not in ("refuses", "another version")],
    ids=[name for name in _MISBEHAVIOURS if name not in ("refuses", "another version")],
)
def test_after_a_bad_collector_a_good_one_gets_every_count_once(manner, source, socket_path):
    store = Store()
    with running_shipper(source, socket_path) as shipper:
        with UnixPeer(socket_path, store=store, manner=manner):
            source.count(1, times=5)
            assert shipper.flush(0.2) is False
        with UnixPeer(socket_path, store=store):
            source.count(2, times=6)
            wait_until(lambda: shipper.flush(1), "the good collector to have it all")
        assert store.counts == source.totals
        assert store.undefined == set()


def test_a_collector_that_is_away_is_one_warning(source, socket_path, caplog):
    with running_shipper(source, socket_path) as shipper:
        wait_until(lambda: shipper.flush(0.01) or shipper.statistics().connection_failures >= 5, "five failures")
        assert "No such file" in shipper.statistics().last_error
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warnings] == ["aiocop"]
    assert str(socket_path) in warnings[0].getMessage()


def test_a_refusal_is_one_warning_and_not_asked_again_for_minutes(source, socket_path, caplog):
    with (
        UnixPeer(socket_path, manner=Manner(refuses=True)) as peer,
        running_shipper(source, socket_path) as shipper,
    ):
        wait_until(lambda: shipper.statistics().connection == "refused", "the refusal")
        source.count(1)
        assert shipper.flush(0.3) is False
        assert peer.connections == 1
        assert "too old" in shipper.statistics().last_error
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_report_that_nobody_can_read_is_dropped_by_name_and_the_next_ones_go_on(source, socket_path):
    """Only a defect of ours can make one; without this it would be refused for ever."""
    shipper = make_shipper(source, socket_path, interval_s=60)
    with UnixPeer(socket_path, manner=Manner(refuses_unreadable=True)) as peer:
        shipper.start()
        source.count(1, times=5)
        source.spoil_next_window(calls=3)
        assert shipper.flush(0.5) is False
        statistics = wait_until(
            lambda: (now := shipper.statistics()).dropped.get("refused") and now, "the report to be given up"
        )
        assert statistics.connection == "refused"
        assert statistics.dropped["refused"] == statistics.recorded == 8
        assert_balanced(statistics)
        assert peer.store.total == 0
        shipper.stop(1)


def test_a_collector_that_restarts_is_not_worth_a_warning(source, socket_path, caplog):
    store = Store()
    with UnixPeer(socket_path, store=store) as peer, running_shipper(source, socket_path) as shipper:
        for _ in range(3):
            source.count(1)
            assert shipper.flush(30)
            peer.drop_connections()
        source.count(1)
        assert shipper.flush(30)
        assert store.total == 4
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


def test_the_socket_file_may_come_late_go_away_and_come_back(source, socket_path):
    store = Store()
    with running_shipper(source, socket_path) as shipper:
        source.count(1, times=5)
        assert shipper.flush(0.1) is False
        for _ in range(3):
            with UnixPeer(socket_path, store=store):
                source.count(2, times=5)
                assert shipper.flush(30)
                socket_path.unlink()
                source.count(3)
                assert shipper.flush(30)  # the connection outlives the file
            source.count(1)
        with UnixPeer(socket_path, store=store):
            assert shipper.flush(30)
    assert store.counts == source.totals


def test_the_second_address_is_tried_where_the_first_does_not_answer(source, tmp_path):
    with (
        UnixPeer(tmp_path / "second.sock") as peer,
        running_shipper(source, tmp_path / "first.sock", tmp_path / "second.sock") as shipper,
    ):
        source.count(1)
        assert shipper.flush(30)
        assert peer.store.total == 1
        assert shipper.statistics().collector == f"unix://{tmp_path / 'second.sock'}"


def test_a_path_no_socket_can_have_is_a_failure_and_not_an_error(source, tmp_path, caplog):
    with running_shipper(source, tmp_path / ("x" * 200)) as shipper:
        wait_until(lambda: shipper.statistics().connection_failures, "the failure")
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]


def test_counts_go_on_folding_where_they_are_while_the_collector_is_away(source, socket_path):
    with running_shipper(source, socket_path, wall_clock_ns=lambda: 10**18) as shipper:
        wait_until(lambda: shipper.statistics().connection_failures >= 2, "two attempts")
        for _ in range(10):
            source.count(1)
            shipper.flush(0.01)
        assert source.takes == 0
        assert shipper.statistics().pending == 10


class _Clock:
    """A wall clock that the test sets."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms * 1_000_000


def test_an_outage_keeps_minutes_apart_and_loses_no_count(source, socket_path):
    first_minute = 28_000_000
    clock = _Clock(first_minute * 60_000 + 5_000)
    with running_shipper(source, socket_path, wall_clock_ns=clock) as shipper:
        for minute in range(70):
            source.count(1, times=minute + 1)
            source.count(minute)
            takes = source.takes
            clock.now_ms += 60_000
            shipper.flush(0)  # wakes it; nobody answers
            wait_until(lambda takes=takes: source.takes > takes, "the minute to be cut")
            assert_balanced(shipper.statistics())
        with UnixPeer(socket_path) as peer:
            assert shipper.flush(60)
            assert peer.store.minutes == {first_minute + minute: minute + 2 for minute in range(70)}
            assert peer.store.counts == source.totals
            for report in peer.store.reports:
                assert report.started_at_ms % 60_000 + report.span_ms <= 60_000


def test_past_the_bound_time_resolution_goes_and_counts_stay(source, socket_path):
    first_minute = 28_000_000
    clock = _Clock(first_minute * 60_000)
    with running_shipper(source, socket_path, wall_clock_ns=clock) as shipper:
        for _ in range(150):
            source.count(1)
            takes = source.takes
            clock.now_ms += 60_000
            shipper.flush(0)
            wait_until(lambda takes=takes: source.takes > takes, "the minute to be cut")
        with UnixPeer(socket_path) as peer:
            assert shipper.flush(60)
            assert peer.store.total == 150
            assert len(peer.store.minutes) == 120
            assert peer.store.minutes[first_minute] == 31
            assert peer.store.minutes[first_minute + 149] == 1


def test_a_wall_clock_that_jumps_back_does_no_harm(source, socket_path):
    clock = _Clock(28_000_000 * 60_000)
    with UnixPeer(socket_path) as peer, running_shipper(source, socket_path, wall_clock_ns=clock) as shipper:
        for jump_ms in (500, -3_600_000, 500, -1, 7_200_000):
            source.count(1)
            clock.now_ms += jump_ms
            assert shipper.flush(30)
        assert peer.store.total == 5


@pytest.mark.parametrize("seed", range(4))
def test_a_collector_killed_at_random_moments_gets_every_count_exactly_once(seed, source, socket_path):
    dice = random.Random(seed)
    store = Store()
    counting = threading.Event()
    counting.set()
    balances = []

    def count() -> None:
        while counting.is_set():
            source.count(dice.randrange(50), times=dice.randrange(1, 5))
            source.slow_event(dice.randrange(50))
            time.sleep(0)

    def watch(shipper) -> None:
        while counting.is_set():
            assert_balanced(shipper.statistics())
            balances.append(True)

    with running_shipper(source, socket_path, interval_s=0.005) as shipper:
        threads = [_Checked(count), _Checked(lambda: watch(shipper))]
        for _ in range(15):
            manner = Manner(closes_after_reports=dice.randrange(4)) if dice.random() < 0.5 else Manner()
            with UnixPeer(socket_path, store=store, manner=manner):
                shipper.flush(dice.random() * 0.2)
        counting.clear()
        for thread in threads:
            thread.finish()
        with UnixPeer(socket_path, store=store):
            assert shipper.flush(60)
            statistics = shipper.statistics()
            assert store.counts == source.totals
            assert statistics.acknowledged == statistics.recorded == store.total
            assert statistics.slow_events_acknowledged == len(store.slow_events)
            assert store.undefined == set()
    assert balances


class _Checked(threading.Thread):
    """A thread whose failure is the test's."""

    def __init__(self, work) -> None:
        super().__init__()
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - shown where the thread is joined
            self._error = error

    def finish(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error
