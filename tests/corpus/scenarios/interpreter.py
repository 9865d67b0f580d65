"""What a freeze can be: the collector, the loop itself, another thread, the host."""

import asyncio
import contextlib
import gc
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.corpus.scenario import freezes, innocent, stopwatch


class _Collected:
    """Times the collector's own pauses, which have no line to put a stopwatch around."""

    def __init__(self):
        self.longest_ms = 0.0
        self._started = 0.0

    def __call__(self, phase, _info):
        if phase == "start":
            self._started = time.perf_counter()
        else:
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - self._started) * 1000)


def young_objects():
    """Many objects that the collector has not looked at yet."""
    gc.disable()
    return [[number] for number in range(700_000)]


@freezes("garbage collection pauses", culprit="<gc>", cause="gc", prepare=young_objects)
async def collector_pause(_objects):
    await asyncio.sleep(0)
    _allocate_until_collected()


@freezes("garbage collection pauses on another thread", culprit="<gc>", cause="gc", prepare=young_objects)
async def collector_pause_elsewhere(_objects):
    await asyncio.sleep(0.005)
    thread = threading.Thread(target=_allocate_until_collected)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)


def _allocate_until_collected():
    collected = _Collected()
    gc.callbacks.append(collected)
    gc.enable()
    for _ in range(3000):
        _kept = [[] for _ in range(10)]
    stopwatch.laps_ms.append(collected.longest_ms)
    gc.callbacks.remove(collected)


@freezes("an explicit `gc.collect()`, its caller's", prepare=young_objects)
async def collect(_objects):
    await asyncio.sleep(0)
    with stopwatch:
        gc.collect()  # <- culprit


@freezes("many small callbacks that add up to a long turn", culprit="<loop>", cause="loop")
async def long_turn():
    def small():
        deadline = time.thread_time() + 0.001
        while time.thread_time() < deadline:
            pass

    loop = asyncio.get_running_loop()
    await asyncio.sleep(0.005)
    started = time.perf_counter()
    for _ in range(100):
        loop.call_soon(small)
    await asyncio.sleep(0)
    stopwatch.laps_ms.append((time.perf_counter() - started) * 1000)


@freezes("another thread holds the GIL: a regular expression", cause="gil")
async def regular_expression_elsewhere():
    def hold():
        with stopwatch:
            pattern.search("a" * 22)  # <- culprit

    pattern = re.compile(r"(a+)+b")
    await asyncio.sleep(0.005)
    thread = threading.Thread(target=hold)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)


@freezes(
    "another thread holds the GIL: sorting",
    cause="gil",
    prepare=lambda: [str(n * 7919 % 99_991) for n in range(350_000)],
)
async def sorting_elsewhere(unsorted):
    def hold():
        with stopwatch:
            sorted(unsorted)  # <- culprit

    await asyncio.sleep(0.005)
    thread = threading.Thread(target=hold)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)


@freezes("another thread holds the GIL while a slice runs", cause="gil")
async def elsewhere_during_a_slice():
    def hold():
        go.wait()
        with stopwatch:
            for _ in range(4): pattern.search("a" * 20)  # <- culprit  # noqa: E701 - one line to name  # fmt: skip

    pattern = re.compile(r"(a+)+b")
    go = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    await asyncio.sleep(0.005)
    go.set()
    while thread.is_alive():
        str(thread)


@freezes("work in an executor that holds the GIL", cause="gil")
async def executor_holds_the_gil():
    def work():
        with stopwatch:
            pattern.search("a" * 22)  # <- culprit

    pattern = re.compile(r"(a+)+b")
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.05)
        future = asyncio.get_running_loop().run_in_executor(pool, work)
        while not future.done():
            await asyncio.sleep(0.001)


def computers():
    """Threads that compute in Python from when the event is set until the list has something in it."""

    def compute():
        go.wait()
        while not done: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip

    go, done = threading.Event(), []
    for _ in range(3):
        threading.Thread(target=compute, daemon=True).start()
    return go, done


@freezes("other threads compute in Python while a slice does", cause="gil", prepare=computers, marked_in=computers)
async def computing_elsewhere(prepared):
    go, done = prepared
    await asyncio.sleep(0.005)
    deadline = time.thread_time() + 0.03
    with stopwatch:
        go.set()
        while time.thread_time() < deadline:
            pass
        done.append(True)


def _run_beside(*arguments):
    return subprocess.Popen([sys.executable, "-S", "-E", "-c", *arguments])


def stopper():
    """A program that stops this process for a while and lets it go on."""
    code = (
        "import os, signal, sys, time; pid = int(sys.argv[1]); time.sleep(0.15); os.kill(pid, signal.SIGSTOP);"
        "time.sleep(0.15); os.kill(pid, signal.SIGCONT)"
    )
    return _run_beside(code, str(os.getpid()))


@innocent("a process that was stopped and goes on", prepare=stopper)
async def stopped(_program):
    deadline = time.perf_counter() + 0.5
    while time.perf_counter() < deadline:
        await asyncio.sleep(0.001)


@innocent("a process that was stopped in the middle of a slice", prepare=stopper)
async def stopped_in_a_slice(_program):
    deadline = time.perf_counter() + 0.5
    while time.perf_counter() < deadline:
        number = 0
        while number < 20_000:
            number += 1
        await asyncio.sleep(0)


def rivals():
    """Programs that want the one CPU that this process may use, and are preferred."""
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    programs = [_run_beside("import time; end = time.time() + 20\nwhile time.time() < end: pass") for _ in range(3)]
    time.sleep(0.3)
    with contextlib.suppress(PermissionError):
        os.nice(4)
    return programs


@innocent("a host that is out of CPU", prepare=rivals)
async def starved_host(_programs):
    for _ in range(10):
        deadline = time.thread_time() + 0.01
        while time.thread_time() < deadline:
            pass
        await asyncio.sleep(0)
