"""A service that blocks its loop when it is told to, on standard input; it answers each command with one line.

    python controlled.py

`block N MS`: N calls of time.sleep(MS / 1000), each in a slice of its own; answers with how many calls were recorded by
then. `deep MS`: one such call below thirty frames of the standard library. `end`. The agent is set up by its variables.
"""

import asyncio
import copy
import sys
import time

import aiocop


class Slow:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __deepcopy__(self, _memo: object) -> "Slow":
        time.sleep(self._seconds)
        return self


def naps(seconds: float) -> None:
    time.sleep(seconds)


async def main() -> None:
    while True:
        command, *arguments = (await asyncio.to_thread(sys.stdin.readline)).split() or ["end"]
        if command == "end":
            return
        if command == "block":
            for _ in range(int(arguments[0])):
                naps(float(arguments[1]) / 1000)
                await asyncio.sleep(0)
        elif command == "deep":
            nested: object = Slow(float(arguments[0]) / 1000)
            for _ in range(30):
                nested = [nested]
            copy.deepcopy(nested)
        await asyncio.sleep(0)
        await asyncio.to_thread(aiocop.flush, 30)
        print(aiocop.statistics().recorded, flush=True)


if __name__ == "__main__":
    aiocop.start(service="controlled")
    print("ready", flush=True)
    asyncio.run(main())
