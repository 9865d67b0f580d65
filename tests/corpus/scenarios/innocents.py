"""What is never reported."""

import asyncio
import contextlib
import os
import queue
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.corpus.harness import Harness
from tests.corpus.scenario import innocent


@innocent("`asyncio.sleep`")
async def sleep():
    await asyncio.sleep(0.08)


@innocent("work in executors", prepare=lambda: ThreadPoolExecutor(2))
async def executor(pool):
    await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.06) for _ in range(4)))


@innocent("uncontended locks")
async def locks():
    for lock in (threading.Lock(), threading.RLock(), threading.Condition(), threading.Semaphore()):
        for _ in range(50):
            with lock:
                await asyncio.sleep(0) if lock is None else None
    ready = threading.Event()
    ready.set()
    ready.wait()


@innocent("queues that are not empty")
async def queues():
    for waiting in (queue.Queue(), queue.SimpleQueue()):
        for number in range(50):
            waiting.put(number)
            waiting.get()


@innocent("asyncio streams")
async def streams():
    async def answer(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(20):
        writer.write(b"hello\n" * 100)
        for _ in range(100):
            await reader.readline()
    writer.close()
    await writer.wait_closed()
    server.close()


@innocent("asyncio subprocesses")
async def subprocesses():
    program = await asyncio.create_subprocess_exec("sleep", "0.05", stdout=asyncio.subprocess.PIPE)
    await program.communicate()


@innocent("`loop.getaddrinfo`")
async def getaddrinfo():
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


@innocent("non-blocking sockets", prepare=socket.socketpair)
async def non_blocking_sockets(pair):
    left, right = pair
    loop = asyncio.get_running_loop()
    left.setblocking(False)
    right.setblocking(False)
    for _ in range(20):
        await loop.sock_sendall(left, b"hello")
        await loop.sock_recv(right, 5)
    with contextlib.suppress(BlockingIOError):
        right.recv(1)


@innocent("many fast tasks")
async def fast_tasks():
    for _ in range(20):
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(100)))


@innocent("blocking calls on other threads", prepare=lambda: (ThreadPoolExecutor(1), os.pipe()))
async def other_threads(prepared):
    pool, pipe = prepared

    def work():
        time.sleep(0.05)
        with open("/dev/null"):
            os.stat("/")
        os.write(pipe[1], b"x")

    future = pool.submit(work)
    while not future.done():
        await asyncio.sleep(0.002)


@innocent("the agent's own threads, while nothing happens")
async def idle():
    for _ in range(6):
        await asyncio.sleep(0.05)


@innocent("lazy imports inside asyncio: the first `to_thread`")
async def first_to_thread():
    await asyncio.to_thread(int)


@innocent("lazy imports inside asyncio: the first subprocess")
async def first_subprocess():
    await (await asyncio.create_subprocess_exec(sys.executable, "-S", "-c", "")).wait()


@innocent("loops that were closed and made anew")
def loop_after_loop(harness: Harness):
    async def main():
        await asyncio.sleep(0.001)

    harness.run(main)
    for _ in range(20):
        harness.run_bare(main)
