"""Where a freeze can hide: in tasks, generators and what is run when they end."""

import asyncio
import contextlib
import gc
import time
from concurrent.futures import ThreadPoolExecutor

from tests.corpus.harness import Harness
from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}


@freezes("task step before an await", **SLEEP)
async def before_an_await():
    with stopwatch:
        time.sleep(0.06)  # <- culprit
    await asyncio.sleep(0)


@freezes("task step after an await", **SLEEP)
async def after_an_await():
    await asyncio.sleep(0.005)
    with stopwatch:
        time.sleep(0.06)  # <- culprit


@freezes("the first slice of the activating task", **SLEEP)
def first_slice(harness: Harness):
    async def main():
        harness.activate()
        async with harness.detector.around():
            with stopwatch:
                time.sleep(0.06)  # <- culprit
            await asyncio.sleep(0.005)

    harness.run_bare(main)


@freezes("activate() before any loop exists", **SLEEP)
def activated_before_the_loop(harness: Harness):
    async def main():
        await asyncio.sleep(0.005)
        async with harness.detector.around():
            with stopwatch:
                time.sleep(0.06)  # <- culprit
            await asyncio.sleep(0.005)

    harness.activate()
    harness.run_bare(main)


@freezes("eager tasks", since=(3, 12), **SLEEP)
async def eager_task():
    async def blocks():
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    await asyncio.sleep(0.005)
    # Not by eager_task_factory: CPython 3.13.0's does not take what uvloop passes to it.
    await asyncio.Task(blocks(), loop=asyncio.get_running_loop(), eager_start=True)


@freezes("async generators", **SLEEP)
async def async_generator():
    async def numbers():
        for number in range(2):
            await asyncio.sleep(0.005)
            with stopwatch:
                time.sleep(0.06)  # <- culprit
            yield number
            break

    async for _ in numbers():
        pass


@freezes("async generators' finalisers", **SLEEP)
async def async_generator_finaliser():
    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    async for _ in numbers():
        break
    gc.collect(0)
    await asyncio.sleep(0.1)


@freezes("`__del__` in a task step", **SLEEP)
async def finaliser_in_a_step():
    class Goes:
        def __del__(self):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    goes = Goes()
    await asyncio.sleep(0.005)
    del goes


@freezes("`__del__` of a callback's argument, outside every slice", culprit="<loop>")
async def finaliser_of_an_argument():
    class Goes:
        def __del__(self):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    asyncio.get_running_loop().call_soon(lambda _: None, Goes())
    await asyncio.sleep(0.005)


@freezes("done callbacks", **SLEEP)
async def done_callback():
    def blocks(_task):
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    task = asyncio.create_task(asyncio.sleep(0.005))
    task.add_done_callback(blocks)
    await task
    await asyncio.sleep(0.005)


@freezes("tasks that block and then raise", **SLEEP)
async def task_raises():
    async def raises():
        await asyncio.sleep(0)
        with stopwatch:
            time.sleep(0.06)  # <- culprit
        raise ValueError

    with contextlib.suppress(ValueError):
        await asyncio.create_task(raises())


@freezes("tasks that block and are cancelled", **SLEEP)
async def task_cancelled():
    async def cancelled():
        await asyncio.sleep(0)
        with stopwatch:
            time.sleep(0.06)  # <- culprit
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.create_task(cancelled())


@freezes("tasks that block while they are cancelled", **SLEEP)
async def cancellation_handler():
    async def cleans_up():
        try:
            await asyncio.sleep(1)
        finally:
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@freezes("task groups", since=(3, 11), **SLEEP)
async def task_group():
    async def blocks():
        await asyncio.sleep(0)
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.005))
        group.create_task(blocks())


@freezes("executors' result callbacks", **SLEEP)
async def executor_result_callback():
    def blocks(_future):
        with stopwatch:
            time.sleep(0.06)  # <- culprit

    with ThreadPoolExecutor(1) as pool:
        future = asyncio.get_running_loop().run_in_executor(pool, int)
        future.add_done_callback(blocks)
        await future
        await asyncio.sleep(0.005)
