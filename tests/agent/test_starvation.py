"""Who kept a ready thread from running: told from threads' times, and by real threads that hold the GIL."""

import asyncio
import gc
import hashlib
import logging
import re
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.detecting import LOOPS, detecting, line_of, run_tasks, slow, the_slow_one
from tests.support.waiting import DEADLINE_S, wait_until

from aiocop.api import _agent
from aiocop.attribution import EndedCall, Moment, Sample, gil_wait_ns, looks_since, starved_ns, waited_ns, worked_ns
from aiocop.frames import FrameNames
from aiocop.gc_pauses import GarbagePauses, Pause
from aiocop.starvation import NEVER, Starvation
from aiocop.thread_clock import ThreadClock, ThreadTimes, cpu_ns
from aiocop.traces import Traces
from aiocop.workers import Worker, Workers

MS = 1_000_000


@pytest.fixture
def workers():
    traces = Traces(FrameNames(runner_module="aiocop.loops"))
    workers = Workers(traces, GarbagePauses(traces.names, lambda pause, frame: None))
    yield workers
    workers.forget()  # closes the files of those it followed


def moment(at_ms, cpu_ms, queued_ms, runs):
    return Moment(at_ms * MS, ThreadTimes(cpu_ms * MS, queued_ms * MS, runs))


@pytest.mark.parametrize(
    ("after", "explained_ms", "expected_ms"),
    [
        (moment(100, 0, 0, 1), 0, 0),  # one long wait for something else
        (moment(100, 0, 0, 21), 0, 100),  # asked every 5 ms
        (moment(100, 0, 40, 14), 0, 60),  # the same on a busy host
        (moment(100, 80, 0, 10), 0, 0),  # a worker that was preempted now and then
        (moment(100, 0, 0, 8), 0, 0),  # took the GIL in passing, and waited for something else
        (moment(100, 0, 0, 8), 60, 40),  # of which most is known
    ],
)
def test_the_wake_ups_tell_a_wait_for_the_gil_from_others(after, explained_ms, expected_ms):
    assert gil_wait_ns([moment(0, 0, 0, 0), after], 5 * MS, explained_ms * MS) == expected_ms * MS


@pytest.mark.parametrize(
    ("times", "elsewhere_ms", "expected_ms"),
    [
        # Future.result(): woken at its end, while the worker that set the result still had the GIL
        ([(6, 0, 0, 0), (25, 0, 1, 5), (40, 0, 1, 5), (55, 0, 1, 5), (61, 0, 1, 8)], [], 0),
        # the same after Thread.start(), for which the thread was woken more often than in all the time that followed
        (
            [(0, 0, 0, 0), (81, 0, 3, 19), (96, 0, 3, 20), (127, 0, 3, 20), (175, 0, 3, 20), (194, 0, 3, 23)],
            [(0, 75)],
            0,
        ),
        # nobody looked while it waited
        ([(75, 0, 3, 18), (187, 0, 3, 21)], [], 0),
        # asked every 5 ms, between all looks
        ([(0, 0, 0, 0), (20, 0, 0, 4), (40, 0, 0, 8), (60, 5, 0, 12), (80, 5, 0, 16)], [], 75),
        # for most of the time, and the rest is in a measured call
        ([(0, 0, 0, 0), (20, 0, 0, 4), (60, 0, 0, 12), (140, 0, 0, 14)], [(60, 140)], 60),
    ],
)
def test_wake_ups_tell_of_the_time_between_the_looks_around_them(times, elsewhere_ms, expected_ms):
    looks = [moment(*look) for look in times]
    elsewhere = [(since * MS, until * MS) for since, until in elsewhere_ms]
    explained = sum(until - since for since, until in elsewhere)
    assert gil_wait_ns(looks, 5 * MS, explained, elsewhere) == expected_ms * MS


def test_looks_begin_with_the_last_one_before():
    samples = [Sample(0, at * MS, ThreadTimes(0, 0, at), True, []) for at in (20, 30, 70)]
    calls = [EndedCall(25 * MS, moment(50, 0, 0, 50))]
    for began_ms, expected in [(55, [50, 70, 90]), (5, [2, 20, 30, 50, 70, 90]), (0, [2, 20, 30, 50, 70, 90])]:
        looks = looks_since(began_ms * MS, moment(90, 0, 0, 90), moment(2, 0, 0, 2), samples, calls)
        assert [look.at_ns // MS for look in looks] == expected
    assert looks_since(0, moment(90, 0, 0, 90), None, [], []) == [moment(90, 0, 0, 90)]


def test_without_times_nothing_is_claimed():
    unknown = Moment(0, None)
    assert gil_wait_ns([moment(100, 0, 0, 30)], 5 * MS) == 0
    assert gil_wait_ns([unknown, moment(100, 0, 0, 30)], 5 * MS) == 0
    assert starved_ns(unknown, moment(100, 0, 90, 30), 100 * MS) == 0


def test_only_what_a_slice_itself_waited_for_a_cpu_is_excused():
    ended = moment(130, 0, 90, 3)
    assert starved_ns(moment(30, 0, 0, 0), ended, 100 * MS) == 90 * MS
    assert starved_ns(moment(0, 0, 0, 0), ended, 100 * MS) == 60 * MS  # 30 of it may have been before
    assert starved_ns(moment(0, 0, 0, 0), ended, 20 * MS) == 0  # that look says nothing of it


def test_what_a_thread_worked_in_a_slice_at_least():
    ended = moment(130, 80, 0, 3)
    assert worked_ns(moment(30, 0, 0, 0), ended, 100 * MS) == 80 * MS
    assert worked_ns(moment(0, 0, 0, 0), ended, 100 * MS) == 50 * MS  # 30 of it may have been before
    assert worked_ns(Moment(30 * MS, None), ended, 100 * MS) == 0


def test_how_long_a_thread_waited_in_a_slice_at_least():
    assert waited_ns(moment(30, 0, 0, 0), moment(130, 60, 0, 3), 100 * MS) == 40 * MS
    assert waited_ns(moment(0, 0, 0, 0), moment(130, 0, 0, 3), 20 * MS) == 20 * MS
    assert waited_ns(moment(0, 0, 0, 0), moment(130, 60, 40, 3), 20 * MS) == 0  # it may all have been before
    assert waited_ns(Moment(0, None), moment(130, 0, 0, 3), 100 * MS) == 0


async def computes():
    until = time.thread_time() + 0.06
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("loop", list(LOOPS))
def test_time_that_a_slice_worked_is_not_the_hosts_whatever_else_the_host_did(loop):
    with detecting(threshold_ms=30) as events:
        _agent._slices.starvation.stopped_ns = lambda since_ns, waited_ns=0: 10**12
        run_tasks(loop, computes)
        del _agent._slices.starvation.stopped_ns
    event = the_slow_one(events)
    assert event.call_site.endswith(":computes")
    assert event.cause == "cpu"


def test_the_cpu_time_of_any_thread_can_be_asked_for():
    clock = ThreadClock()
    before_ns = cpu_ns(threading.get_native_id())
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass
    assert cpu_ns(threading.get_native_id()) - before_ns >= 9 * MS
    clock.close()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    wait_until(lambda: cpu_ns(thread.native_id) == 0, "the kernel forgets the thread")


def test_a_watchdog_that_is_on_time_or_parked_is_not_judged(workers):
    starvation = Starvation(workers)
    clock = ThreadClock()
    assert starvation.due_ns == NEVER
    starvation.parks()
    assert starvation.due_ns == 0
    starvation.sleeps_until(time.perf_counter_ns() + 10**12, clock)
    assert starvation.judge(time.perf_counter_ns()) == 0
    assert starvation.stopped_ns(0) == 0
    clock.close()


async def ticks_until(seen):
    deadline = time.monotonic() + DEADLINE_S
    while not seen() and time.monotonic() < deadline:
        await asyncio.sleep(0.001)


def run_beside(loop, work, seen):
    """Ticks of a loop until `seen()`, while a thread works again and again, as a pool's worker does.

    Some hold of the GIL is long enough then, and looked at in time.
    """

    def works():
        while not done.is_set():
            work()

    done = threading.Event()
    thread = threading.Thread(target=works)
    thread.start()
    try:
        LOOPS[loop](ticks_until(seen))
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("loop", list(LOOPS))
def test_the_line_that_holds_the_gil_elsewhere_is_named(loop):
    def holds():
        pattern.search("a" * 20)

    def blamed():
        return [event for event in events if event.cause == "gil" and "holds" in event.call_site]

    pattern = re.compile(r"(a+)+b")
    with detecting(threshold_ms=20) as events:
        run_beside(loop, holds, blamed)
    event = blamed()[0]
    line = line_of(holds, "pattern.search")
    assert f"test_starvation.py:{line}:" in event.call_site
    assert event.reason == "cpu_blocking"


ROUNDS = 30


async def waits_for_work_after_many_short_waits():
    condition = threading.Condition()

    def wakes():
        while rounds < ROUNDS:
            with condition:
                condition.notify()
            time.sleep(0.001)

    rounds = 0
    thread = threading.Thread(target=wakes)
    thread.start()
    while rounds < ROUNDS:
        with condition:
            condition.wait()
        rounds += 1
    thread.join()
    time.sleep(0.025)
    with ThreadPoolExecutor(1) as pool:
        # It has no use for the GIL, and works longer than all that was before took.
        future = pool.submit(hashlib.pbkdf2_hmac, "sha256", b"password", b"salt", 200_000)
        future.result()


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_wait_for_a_worker_is_no_wait_for_the_gil_whatever_woke_the_thread_before(loop):
    line = line_of(waits_for_work_after_many_short_waits, "future.result()")
    for _ in range(4):  # who worked is known since CPU times were noted, which may have been just now
        with detecting(threshold_ms=20) as events:
            run_tasks(loop, waits_for_work_after_many_short_waits)
        event = the_slow_one(events)
        assert f"test_starvation.py:{line}:" in event.call_site
        assert event.cause == "wait"


def test_looking_at_other_threads_leaves_nothing_of_theirs_to_the_garbage_collection(workers):
    """CPython 3.12 crashed in a service when it collected what multiprocessing's Connection.recv held."""

    class Held:
        pass

    looked, entered, gone = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        held = Held()
        weakref.finalize(held, gone.set)
        entered.set()
        looked.wait(60)

    thread = threading.Thread(target=work, name="works")
    thread.start()
    assert entered.wait(60)
    gc.disable()
    try:
        found = workers.busiest(-(1 << 62))
        workers.somebody_is_gone(1 << 62)
        looked.set()
        thread.join()
        assert gone.is_set()
    finally:
        gc.enable()
    assert any(frame.code.co_name == "work" for worker in found for frame in worker.stack)


def allocates():
    gc.disable()
    kept = [[number] for number in range(400_000)]
    gc.enable()
    for _ in range(3_000):
        kept.append([])  # now and then this collects


def collects():
    kept = [[number] for number in range(200_000)]
    gc.collect()
    del kept


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_collection_on_another_thread_is_not_the_fault_of_the_line_that_allocated(loop):
    with detecting(threshold_ms=20) as events:
        run_beside(loop, allocates, lambda: [event for event in events if event.cause == "gc"])
    event = next(event for event in events if event.cause == "gc")
    assert event.call_site == "<gc>"
    assert event.gc_ms >= 10


@pytest.mark.parametrize("loop", list(LOOPS))
def test_an_explicit_collection_on_another_thread_is_its_callers(loop):
    def blamed():
        return [event for event in events if event.cause == "gil" and event.call_site.endswith(f":{line}:collects")]

    # It was there before ours, and in it the loop's thread may get the GIL.
    somebody_elses_callback = logging.getLogger("test").debug

    line = line_of(collects, "gc.collect()")
    gc.callbacks.append(somebody_elses_callback)
    with detecting(threshold_ms=20) as events:
        gc.disable()  # what the collector would do by itself
        try:
            run_beside(loop, collects, blamed)
        finally:
            gc.enable()
            gc.callbacks.remove(somebody_elses_callback)
    assert blamed()
    assert not [event for event in events if event.gc_ms]


def test_collections_of_others_count_from_the_moment_in_question():
    pauses = GarbagePauses(FrameNames(runner_module="aiocop.loops"), lambda pause, frame: None)
    pauses.pauses.extend([Pause(1, 10, 30), Pause(2, 40, 70), Pause(1, 80, 90)])
    assert pauses.others_ns(waiting=3, since_ns=20) == 10 + 30 + 10
    assert pauses.others_ns(waiting=1, since_ns=50) == 20
    assert pauses.own_ns(1, since_ns=85) == 5
    pauses.remove()
    assert pauses.others_ns(waiting=3, since_ns=0) == 0


def test_a_pools_thread_that_has_nothing_to_do_is_no_line_that_held_the_gil(workers):
    starvation = Starvation(workers)
    list(workers.note())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(sum, range(3_000_000)).result()
        me = threading.get_ident()
        # Between the result and the wait for more work the thread takes some steps.
        wait_until(lambda: starvation.holder(me, 0, 1 * MS).is_idle, "nobody's line is found")
        assert starvation.holder(me, 0, 10**15) is None  # nobody worked so long


def test_threads_that_work_are_followed_until_they_end_or_all_is_forgotten(workers):
    done = threading.Event()
    native_ids = []

    def works():
        native_ids.append(threading.get_native_id())
        while not done.is_set():
            sum(range(1000))

    def is_followed():
        workers._noted_ns = 0  # as if it were time again
        list(workers.note())
        return native_ids and native_ids[0] in workers._clocks

    thread = threading.Thread(target=works)
    thread.start()
    try:
        wait_until(is_followed, "the thread is seen at work")
        (worker,) = [one for one in workers.busiest(0) if one.ident == thread.ident]
        assert worker.queued_ns >= 0
    finally:
        done.set()
        thread.join()
    wait_until(lambda: not is_followed(), "it has ended")
    workers.forget()
    assert workers._clocks == {}


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_holder_of_the_gil_that_had_no_cpu_is_not_to_blame_for_that(loop):
    def holds():
        pattern.search("a" * 20)

    def starved():
        return [event for event in events if event.cause == "starved"]

    pattern = re.compile(r"(a+)+b")
    with detecting(threshold_ms=20) as events:
        workers = _agent._slices.workers
        busiest = workers.busiest
        workers.busiest = lambda gil_ns: [Worker(one.ident, 10**12, one.stack) for one in busiest(gil_ns)]
        try:
            run_beside(loop, holds, starved)
        finally:
            del workers.busiest
    assert starved()
    assert not [event for event in slow(events) if event.cause == "gil"]
