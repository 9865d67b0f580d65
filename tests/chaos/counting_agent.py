"""A service that freezes its loop a known number of times and says what it did.

    python counting_agent.py COLLECTOR SERVICE PAUSE_S PROGRESS_FILE

Works until SIGTERM, then flushes and prints one line of JSON. In between, PROGRESS_FILE holds two numbers for whoever
kills it: file openings begun, and calls acknowledged by the collector.
"""

import asyncio
import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

import aiocop

PROGRESS = struct.Struct("<QQ")
FLUSH_S = 120.0
OPENED = "open in opens_a_file"
NAPPED = "time.sleep in takes_a_nap"


def opens_a_file() -> None:
    with open(os.devnull):
        pass


def takes_a_nap() -> None:
    time.sleep(0)


async def work(pause_s: float, progress: mmap.mmap) -> dict[str, int]:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    done = {OPENED: 0, NAPPED: 0}
    print("ready", flush=True)
    while not stopped.is_set():
        done[OPENED] += 3
        done[NAPPED] += 1
        PROGRESS.pack_into(progress, 0, done[OPENED], aiocop.statistics().acknowledged)
        for _ in range(3):
            opens_a_file()
        takes_a_nap()
        await asyncio.sleep(pause_s)
    return done


def main(collector: str, service: str, pause_s: str, progress_file: str) -> None:
    with Path(progress_file).open("r+b") as file:
        progress = mmap.mmap(file.fileno(), PROGRESS.size)
    agent = aiocop.start(service=service, collector=collector, overhead_budget_percent=0)
    done = asyncio.run(work(float(pause_s), progress))
    shipper = agent._shipper
    flushed = aiocop.flush(FLUSH_S)
    statistics = aiocop.statistics()
    aiocop.stop()
    answer = {
        "done": done,
        "flushed": flushed,
        "recorded": statistics.recorded,
        "acknowledged": statistics.acknowledged,
        "pending": statistics.pending,
        "dropped": dict(statistics.dropped),
        "faults": statistics.faults,
        "reports_sent": shipper.statistics().reports_sent,
        "failures": shipper.statistics().connection_failures,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
