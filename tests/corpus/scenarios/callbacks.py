"""Where a freeze can hide: in callbacks that are no tasks."""

import asyncio
import os
import signal
import socket
import threading
import time

from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}


@freezes("`call_soon`", **SLEEP)
async def call_soon():
    def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    asyncio.get_running_loop().call_soon(blocks)
    await asyncio.sleep(0.005)


@freezes("`call_soon_threadsafe`", **SLEEP)
async def call_soon_threadsafe():
    def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    thread = threading.Thread(target=asyncio.get_running_loop().call_soon_threadsafe, args=(blocks,))
    await asyncio.sleep(0.005)
    thread.start()
    await asyncio.sleep(0.03)
    thread.join()


@freezes("`call_later`", **SLEEP)
async def call_later():
    def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    asyncio.get_running_loop().call_later(0.005, blocks)
    await asyncio.sleep(0.02)


@freezes("`call_at`", **SLEEP)
async def call_at():
    def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    loop = asyncio.get_running_loop()
    loop.call_at(loop.time() + 0.005, blocks)
    await asyncio.sleep(0.02)


@freezes("callbacks that block and then raise", **SLEEP)
async def callback_raises():
    def raises():
        with stopwatch:
            time.sleep(0.06)  # <- culprit
        raise ValueError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.call_soon(raises)
    await asyncio.sleep(0.005)


@freezes("`add_reader`", **SLEEP)
async def add_reader():
    def blocks():
        left.recv(1)
        loop.remove_reader(left)
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    left.setblocking(False)
    loop.add_reader(left, blocks)
    right.send(b"x")
    await asyncio.sleep(0.02)
    left.close()
    right.close()


@freezes("`add_writer`", **SLEEP)
async def add_writer():
    def blocks():
        loop.remove_writer(left)
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    left.setblocking(False)
    loop.add_writer(left, blocks)
    await asyncio.sleep(0.02)
    left.close()
    right.close()


@freezes("signal handlers of the loop", **SLEEP)
async def loop_signal_handler():
    def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, blocks)
    await asyncio.sleep(0.005)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.02)


@freezes("`signal.signal` handlers while the loop is idle", culprit="<loop>")
async def python_signal_handler():
    def blocks(_number, _frame):
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    signal.signal(signal.SIGUSR1, blocks)
    thread = threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGUSR1])
    thread.start()
    await asyncio.sleep(0.05)
    thread.join()
