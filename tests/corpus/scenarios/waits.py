"""What a freeze can be: a wait for a lock, a queue, another thread, another process."""

import asyncio
import concurrent.futures
import fcntl
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from time import sleep as early_bound_sleep

from tests.corpus.scenario import freezes, stopwatch

WAIT = {"cause": "wait"}


def later(function, *arguments, after_s=0.08):
    """Call it on another thread in a while."""
    thread = threading.Timer(after_s, function, arguments)
    thread.daemon = True
    thread.start()


def held(lock):
    """Let another thread hold the lock for a while."""
    taken = threading.Event()

    def hold():
        with lock:
            taken.set()
            time.sleep(0.08)

    threading.Thread(target=hold, daemon=True).start()
    taken.wait()


@freezes("an early-bound name: `from time import sleep`", **WAIT)
async def early_bound():
    with stopwatch:
        early_bound_sleep(0.06)  # <- culprit


@freezes("`Lock`, by `with`", **WAIT)
async def lock_with():
    lock = threading.Lock()
    held(lock)
    await asyncio.sleep(0)
    with stopwatch, lock: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip


@freezes("`Lock.acquire`", **WAIT)
async def lock_acquire():
    lock = threading.Lock()
    held(lock)
    await asyncio.sleep(0)
    with stopwatch:
        lock.acquire()  # <- culprit


@freezes("`RLock`", **WAIT)
async def rlock():
    lock = threading.RLock()
    held(lock)
    await asyncio.sleep(0)
    with stopwatch:
        lock.acquire()  # <- culprit


@freezes("`Semaphore`", **WAIT)
async def semaphore():
    waiting = threading.Semaphore(0)
    later(waiting.release)
    await asyncio.sleep(0)
    with stopwatch:
        waiting.acquire()  # <- culprit


@freezes("`Condition`", operation="threading.Condition.wait", **WAIT)
async def condition():
    waiting = threading.Condition()
    await asyncio.sleep(0)
    with waiting, stopwatch:
        waiting.wait(0.06)  # <- culprit


@freezes("`Event`", operation="threading.Event.wait", **WAIT)
async def event():
    waiting = threading.Event()
    later(waiting.set)
    await asyncio.sleep(0)
    with stopwatch:
        waiting.wait()  # <- culprit


@freezes("`Queue`", operation="queue.Queue.get", **WAIT)
async def queue_get():
    waiting = queue.Queue()
    later(waiting.put, 1)
    await asyncio.sleep(0)
    with stopwatch:
        waiting.get()  # <- culprit


@freezes("a full `Queue`", operation="queue.Queue.put", **WAIT)
async def queue_put():
    waiting = queue.Queue(1)
    waiting.put(1)
    later(waiting.get)
    await asyncio.sleep(0)
    with stopwatch:
        waiting.put(1)  # <- culprit


@freezes("`SimpleQueue`", **WAIT)
async def simple_queue():
    waiting = queue.SimpleQueue()
    later(waiting.put, 1)
    await asyncio.sleep(0)
    with stopwatch:
        waiting.get()  # <- culprit


@freezes("`Future.result()`", operation="concurrent.futures.Future.result", **WAIT)
async def future_result():
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(time.sleep, 0.08)
        await asyncio.sleep(0)
        with stopwatch:
            future.result()  # <- culprit


@freezes("`concurrent.futures.wait`", operation="concurrent.futures.wait", **WAIT)
async def futures_wait():
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(time.sleep, 0.08)
        await asyncio.sleep(0)
        with stopwatch:
            concurrent.futures.wait([future])  # <- culprit


@freezes("`Thread.join`", operation="threading.Thread.join", **WAIT)
async def thread_join():
    thread = threading.Thread(target=time.sleep, args=(0.08,))
    thread.start()
    await asyncio.sleep(0)
    with stopwatch:
        thread.join()  # <- culprit


@freezes("the end of an executor", **WAIT)
async def executor_shutdown():
    pool = ThreadPoolExecutor(1)
    pool.submit(time.sleep, 0.08)
    await asyncio.sleep(0)
    with stopwatch:
        pool.shutdown()  # <- culprit


@freezes("`select`", operation="select.select", **WAIT)
async def select_select():
    with stopwatch:
        select.select([], [], [], 0.06)  # <- culprit


@freezes("`select.poll`", **WAIT)
async def select_poll():
    poll = select.poll()
    with stopwatch:
        poll.poll(60)  # <- culprit


@freezes("`fcntl`", operation="fcntl.flock", **WAIT)
async def flock():
    with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        later(fcntl.flock, first, fcntl.LOCK_UN)
        await asyncio.sleep(0)
        with stopwatch:
            fcntl.flock(second, fcntl.LOCK_EX)  # <- culprit


@freezes("`subprocess.run`", operation="subprocess.Popen")
async def subprocess_run():
    with stopwatch:
        subprocess.run(["sleep", "0.06"], check=True)  # <- culprit


@freezes("`subprocess.check_output`", operation="subprocess.Popen")
async def subprocess_check_output():
    with stopwatch:
        subprocess.check_output(["sleep", "0.06"])  # <- culprit


@freezes("`Popen.wait`", operation="subprocess.Popen.wait", **WAIT)
async def popen_wait():
    program = subprocess.Popen(["sleep", "0.1"])
    await asyncio.sleep(0)
    with stopwatch:
        program.wait()  # <- culprit


@freezes("`os.waitpid`", operation="os.waitpid", **WAIT)
async def waitpid():
    program = subprocess.Popen(["sleep", "0.1"])
    await asyncio.sleep(0)
    with stopwatch:
        os.waitpid(program.pid, 0)  # <- culprit


@freezes("`os.system`", operation="os.system")
async def os_system():
    with stopwatch:
        os.system("sleep 0.06")  # <- culprit


def typing():
    """A terminal's other end, on which somebody types in a while."""
    read, write = os.pipe()
    os.dup2(read, 0)
    sys.stdin = open(0, closefd=False)
    return write


@freezes("`input`", operation="builtins.input", prepare=typing, **WAIT)
async def input_line(write):
    later(os.write, write, b"x\n")
    await asyncio.sleep(0)
    with stopwatch:
        input()  # <- culprit
