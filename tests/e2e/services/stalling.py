"""A process that freezes its loop in the way it is told, and then says so.

    python stalling.py HOW SECONDS (asyncio | uvloop)

HOW: `naps` (a wrapped call), `naps-early-bound` (only samples see it), `holds-gil` (native code; after one open() whose
site is the last one known), `forks-and-naps` (a child that knows nothing of the agent keeps its socket open). Prints
`frozen` as it begins, or the child's process id, then `thawed`; afterwards it flushes, prints `flushed`, and waits for
the end of its standard input.
"""

import asyncio
import ctypes
import os
import re
import sys
import time
from time import sleep as early_bound_sleep

import uvloop

import aiocop


def naps(seconds: float) -> None:
    time.sleep(seconds)


def naps_early_bound(seconds: float) -> None:
    early_bound_sleep(seconds)


def holds_gil(seconds: float) -> None:
    with open(os.devnull):
        pass
    length = 18
    began_s = time.thread_time()  # a busy host must not make it look slower than it is
    re.match("(a+)+b", "a" * length)
    per_try_s = time.thread_time() - began_s
    # Each further character doubles the tries; nothing of Python runs meanwhile.
    while per_try_s < seconds:
        length, per_try_s = length + 1, per_try_s * 2
    re.match("(a+)+b", "a" * length)


def forks_and_naps(seconds: float) -> None:
    # C's fork: no handler of Python's runs in the child, so whatever it inherited stays open. PyDLL keeps the GIL.
    c = ctypes.PyDLL(None)
    pid = c.fork()
    if pid == 0:
        c.pause()
    print(pid, flush=True)
    naps(seconds)


HOW = {
    "naps": naps,
    "naps-early-bound": naps_early_bound,
    "holds-gil": holds_gil,
    "forks-and-naps": forks_and_naps,
}


async def freeze(how: str, seconds: float) -> None:
    await asyncio.sleep(0.05)
    await asyncio.to_thread(aiocop.flush, 30)
    if how != "forks-and-naps":
        print("frozen", flush=True)
    HOW[how](seconds)
    print("thawed", flush=True)
    await asyncio.to_thread(aiocop.flush, 30)
    print("flushed", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    aiocop.start(service="stalling")
    run = {"asyncio": asyncio.run, "uvloop": uvloop.run}[sys.argv[3]]
    run(freeze(sys.argv[1], float(sys.argv[2])))
