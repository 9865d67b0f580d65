"""What the detector sees, on both loops: the right line, the right time, one event per freeze, and no innocents."""

import asyncio
import contextvars
import gc
import hashlib
import json
import os
import queue
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.detecting import (
    LOOPS,
    detecting,
    line_of,
    operations,
    run_tasks,
    run_until_sampled,
    slow,
    the_slow_one,
)

import aiocop


def here(function, text):
    """`path:line:function` of a line of a function in this file, as call sites are written."""
    module = Path(__file__).stem
    return f"{__name__.replace('.', '/')}.py:{line_of(function, text)}:{function.__qualname__}", module


def spin(cpu_s):
    """Burn CPU time: on a busy host this takes longer, and the difference is not this code's fault."""
    until_s = time.thread_time() + cpu_s
    rounds = 0
    while time.thread_time() < until_s:
        rounds += 1
    return rounds


async def sleeps():
    time.sleep(0.06)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_measured_call_is_blamed_with_its_own_duration(loop):
    with detecting() as events:
        run_tasks(loop, sleeps)
    event = the_slow_one(events)
    assert event.call_site == here(sleeps, "time.sleep")[0]
    assert (event.reason, event.cause, event.severity_level) == ("io_blocking", "wait", "high")
    assert (event.loop, event.task_name) == (loop, "sleeps")
    (call,) = event.blocking_events
    assert call["event"] == "time.sleep(0.06)"
    assert call["entry_point"] == call["call_site"] == event.call_site
    assert 60 <= call["duration_ms"] <= event.elapsed_ms
    assert call["advice"] == "Use await asyncio.sleep()."


async def computes():
    spin(0.08)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_cpu_is_blamed_on_the_line_that_burns_it(loop):
    event = run_until_sampled(loop, computes)
    assert event.call_site.endswith(":spin")
    assert (event.reason, event.cause) == ("cpu_blocking", "cpu")
    assert event.cpu_stack_samples[0]["trace"].endswith(here(computes, "spin(")[0])


async def opens_and_computes():
    with open(os.devnull):
        pass
    spin(0.08)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_cpu_after_a_short_open_is_cpu(loop):
    event = run_until_sampled(loop, opens_and_computes)
    assert event.cause == "cpu"
    assert event.call_site.endswith(":spin")
    assert operations([event]) == ["open"]


_lock = threading.Lock()
_about_to_wait = threading.Event()


async def waits_for_a_lock():
    _about_to_wait.set()
    with _lock:
        pass


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_contended_lock_is_a_wait_at_its_line(loop):
    held = threading.Event()
    _about_to_wait.clear()

    def hold():
        with _lock:
            held.set()
            _about_to_wait.wait()
            time.sleep(0.12)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with detecting() as events:
        run_tasks(loop, waits_for_a_lock)
    holder.join()
    event = the_slow_one(events)
    assert event.call_site == here(waits_for_a_lock, "with _lock")[0]
    assert event.cause == "wait"


async def waits_for_a_future():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(spin, 0.06).result()


async def waits_for_a_queue():
    waiting = queue.Queue()
    threading.Timer(0.06, waiting.put, [1]).start()
    waiting.get()


@pytest.mark.parametrize(
    ("function", "line", "operation"),
    [
        (waits_for_a_future, ".result()", "concurrent.futures.Future.result"),
        (waits_for_a_queue, "waiting.get()", "queue.Queue.get"),
    ],
)
@pytest.mark.parametrize("loop", list(LOOPS))
def test_waits_for_other_threads_are_named_by_what_was_called(loop, function, line, operation):
    with detecting(threshold_ms=40) as events:
        run_tasks(loop, function)
    for timer in threading.enumerate():
        if isinstance(timer, threading.Timer):
            timer.join()
    event = the_slow_one(events)
    assert operation in operations([event])
    assert event.call_site == here(function, line)[0]


async def runs_a_program():
    subprocess.run(["sleep", "0.06"], check=True)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_subprocess_run_is_blamed_on_its_caller(loop):
    with detecting() as events:
        run_tasks(loop, runs_a_program)
    event = the_slow_one(events)
    assert event.call_site == here(runs_a_program, "subprocess.run")[0]
    assert {"subprocess.Popen"} < set(operations([event]))
    measured_ms = sum(call["duration_ms"] or 0 for call in event.blocking_events)
    assert 55 <= measured_ms <= event.elapsed_ms


_DOCUMENT = json.dumps([{"number": number, "text": str(number)} for number in range(120_000)])


async def parses():
    json.loads(_DOCUMENT)


async def matches():
    re.search(r"(a+)+b", "a" * 22)


async def sorts():
    sorted(str(number * 7919 % 1_000_003) for number in range(400_000))


async def compresses():
    zlib.compress(b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(40_000)), 9)


@pytest.mark.parametrize("function", [parses, matches, sorts, compresses])
@pytest.mark.parametrize("loop", list(LOOPS))
def test_native_code_is_blamed_on_the_function_that_called_it(loop, function):
    with detecting(threshold_ms=20) as events:
        run_tasks(loop, function)
    event = the_slow_one(events)
    assert event.cause == "cpu"
    assert event.call_site.rpartition(":")[2].startswith(function.__name__)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_callback_that_blocks_and_raises_is_delivered(loop):
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        asyncio.get_running_loop().call_soon(blocks_and_raises)
        await asyncio.sleep(0.01)

    def blocks_and_raises():
        time.sleep(0.05)
        raise RuntimeError("after blocking")

    reported = []
    with detecting() as events:
        LOOPS[loop](main())
    assert the_slow_one(events).call_site.endswith("blocks_and_raises")
    (context,) = reported
    assert "blocks_and_raises" in context["message"]
    assert "blocks_and_raises" in repr(context["handle"])


@pytest.mark.parametrize("how", ["call_soon", "call_later", "call_at", "call_soon_threadsafe", "signal", "reader"])
@pytest.mark.parametrize("loop", list(LOOPS))
def test_every_way_to_run_a_callback_is_one_slice(loop, how):
    done = []

    def blocks(*_):
        time.sleep(0.05)
        done.append(True)

    async def main():
        running = asyncio.get_running_loop()
        left, right = socket.socketpair()
        if how in ("call_soon", "call_soon_threadsafe"):
            getattr(running, how)(blocks)
        elif how == "call_later":
            running.call_later(0.01, blocks)
        elif how == "call_at":
            running.call_at(running.time() + 0.01, blocks)
        elif how == "signal":
            running.add_signal_handler(signal.SIGUSR1, blocks)
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            running.add_reader(left, lambda: (left.recv(1), running.remove_reader(left), blocks()))
            right.send(b"x")
        while not done:
            await asyncio.sleep(0.001)
        if how == "signal":
            running.remove_signal_handler(signal.SIGUSR1)
        left.close()
        right.close()

    with detecting() as events:
        LOOPS[loop](main())
    assert the_slow_one(events).call_site.endswith("<locals>.blocks")


@pytest.mark.parametrize("loop", list(LOOPS))
def test_exact_counts_however_the_calls_spread_over_slices(loop):
    async def opens():
        for number in range(500):
            os.close(os.open(os.devnull, os.O_RDONLY))
            if number % 7 == 0:
                await asyncio.sleep(0)

    async def naps():
        for number in range(200):
            time.sleep(0.0001)
            if number % 11 == 0:
                await asyncio.sleep(0)

    with detecting():
        before = aiocop.statistics().recorded
        run_tasks(loop, opens, naps)
        assert aiocop.statistics().recorded - before == 700


@pytest.mark.parametrize("loop", list(LOOPS))
def test_innocent_code_is_not_reported(loop):
    uncontended = threading.Lock()
    ready = threading.Event()
    ready.set()
    filled = queue.Queue()
    filled.put(1)

    async def innocent():
        await asyncio.sleep(0.05)
        await asyncio.to_thread(time.sleep, 0.05)
        with uncontended:
            pass
        ready.wait()
        filled.get()
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(100)))
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(left, b"hello")
        await asyncio.get_running_loop().sock_recv(right, 5)
        left.close()
        right.close()
        program = await asyncio.create_subprocess_exec("true")
        await program.wait()

    async def main():
        # Lazy imports of asyncio and the executor's only thread: once, and not what is tested here. On a busy host it
        # takes a while until a thread runs, and that is a wait.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await asyncio.to_thread(int)
        await (await asyncio.create_subprocess_exec("true")).wait()
        with detecting(threshold_ms=1000) as events:
            await asyncio.create_task(innocent())
        assert operations(events) == []

    LOOPS[loop](main())


@pytest.mark.parametrize("loop", list(LOOPS))
def test_loops_on_other_threads_and_second_runs_are_seen(loop):
    with detecting() as events:
        threads = [threading.Thread(target=run_tasks, args=(loop, sleeps), name=f"side-{n}") for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run_tasks(loop, sleeps)
        assert aiocop.statistics().recorded == 4
    assert sorted(event.thread_name for event in slow(events)) == ["MainThread", "side-0", "side-1", "side-2"]


@pytest.mark.parametrize("loop", list(LOOPS))
def test_the_slice_in_which_monitoring_begins_is_seen(loop):
    async def main():
        with detecting() as events:
            time.sleep(0.05)
            await asyncio.sleep(0)
            assert the_slow_one(events).call_site.endswith("<locals>.main")
            assert "asyncio" not in events[0].blocking_events[0]["trace"]

    LOOPS[loop](main())


class BlockingProtocol(asyncio.Protocol):
    def data_received(self, data):
        time.sleep(0.05)
        self.received = data


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_protocol_callback_is_seen(loop):
    async def main():
        protocol = BlockingProtocol()
        server = await asyncio.get_running_loop().create_server(lambda: protocol, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        while not hasattr(protocol, "received"):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    with detecting() as events:
        LOOPS[loop](main())
    event = the_slow_one(events)
    assert event.call_site.endswith("BlockingProtocol.data_received")
    assert 50 <= event.elapsed_ms < 500


async def allocates():
    kept = [[] for _ in range(600_000)]
    for number in range(100_000):
        kept.append([number])
    del kept


async def collects():
    kept = [[number] for number in range(600_000)]
    gc.collect()
    del kept


@pytest.mark.parametrize("loop", list(LOOPS))
def test_garbage_collection_is_named_as_such(loop):
    """What the collector does on its own is `<gc>`; an explicit collect() is its caller's."""
    thresholds = gc.get_threshold()
    gc.set_threshold(700, 2, 0)
    try:
        with detecting(threshold_ms=5) as events:
            run_tasks(loop, allocates)
            assert any(event.gc_ms > 1 for event in slow(events))
            events.clear()
            gc.disable()
            run_tasks(loop, collects)
    finally:
        gc.enable()
        gc.set_threshold(*thresholds)
    assert "gc.collect" in operations(events)
    (call,) = [call for event in events for call in event.blocking_events if call["event"].startswith("gc.collect")]
    assert call["call_site"] == here(collects, "gc.collect")[0]


@pytest.mark.parametrize("loop", list(LOOPS))
def test_the_slice_that_was_active_at_start_goes_on_and_later_ones_are_seen(loop):
    async def main():
        with detecting() as events:
            await asyncio.create_task(sleeps())
            await asyncio.sleep(0)
            assert the_slow_one(events).call_site.endswith(":sleeps")
        time.sleep(0.05)
        await asyncio.sleep(0)
        assert len(slow(events)) == 1

    LOOPS[loop](main())


@pytest.mark.parametrize("loop", list(LOOPS))
def test_inactive_is_silent(loop):
    with detecting() as events:
        aiocop.deactivate()
        assert not aiocop.is_monitoring_active()
        run_tasks(loop, sleeps)
        assert events == []
        aiocop.activate()
        run_tasks(loop, sleeps)
    assert len(slow(events)) == 1


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_library_frame_on_top_does_not_hide_the_application(loop):
    async def makes_a_file():
        with tempfile.NamedTemporaryFile():
            pass

    with detecting(threshold_ms=1000) as events:
        run_tasks(loop, makes_a_file)
    calls = [call for event in events for call in event.blocking_events]
    assert calls
    assert {call["call_site"].rpartition(":")[2].rpartition(".")[2] for call in calls} == {"makes_a_file"}
    assert any(call["entry_point"].startswith("tempfile.py:") for call in calls)


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_database_query_is_reported_where_it_is_made(loop):
    async def queries():
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT count(*) FROM n"
        ).fetchone()

    plain = connection = sqlite3.connect(":memory:", check_same_thread=False)
    with detecting() as events:
        measured = sqlite3.connect(":memory:", check_same_thread=False)
        run_tasks(loop, queries)
        connection = measured
        run_tasks(loop, queries)
        assert type(measured).__name__ == "Connection"
        assert isinstance(measured, sqlite3.Connection)
    sampled, queried = slow(events)
    for event in (sampled, queried):
        assert event.call_site.endswith("<locals>.queries")
    assert "sqlite3.Cursor.execute" in operations([queried])
    assert measured.execute("SELECT 1").fetchall() == [(1,)]
    measured.close()
    plain.close()


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_broken_callback_harms_nobody(loop, caplog):
    def broken(_event):
        raise ValueError("mine")

    with detecting() as events:
        aiocop.register_slow_task_callback(broken)
        run_tasks(loop, sleeps, sleeps)
        assert aiocop.statistics().callback_failures == 2
    assert len(slow(events)) == 2
    assert len([record for record in caplog.records if "broken" in record.message]) == 1


@pytest.mark.parametrize("loop", list(LOOPS))
def test_context_comes_from_the_providers_in_the_task_s_own_context(loop):
    request = contextvars.ContextVar("request", default=None)

    async def handles():
        request.set("r-1")
        time.sleep(0.05)

    with detecting() as events:
        aiocop.register_context_provider(lambda: {"request": request.get()})
        run_tasks(loop, handles)
    assert the_slow_one(events).context == {"request": "r-1"}


@pytest.mark.parametrize("loop", list(LOOPS))
def test_raise_on_violations_raises_out_of_the_loop(loop):
    async def main():
        with aiocop.raise_on_violations():
            await asyncio.create_task(sleeps())

    with (
        detecting(),
        pytest.raises(aiocop.HighSeverityBlockingIoException, match="HIGH SEVERITY BLOCKING I/O") as raised,
    ):
        LOOPS[loop](main())
    assert raised.value.events[0]["event"] == "time.sleep(0.06)"


def test_many_short_callbacks_in_one_turn_are_the_loop():
    """Two hundred callbacks of 1 ms each freeze a loop for 200 ms, and none of them is slow."""

    async def main():
        running = asyncio.get_running_loop()
        for _ in range(200):
            running.call_soon(spin, 0.001)
        await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)

    with detecting(threshold_ms=60) as events:
        asyncio.run(main())
    event = the_slow_one(events)
    assert (event.cause, event.call_site, event.reason) == ("loop", "<loop>", "cpu_blocking")
    assert event.elapsed_ms >= 200
