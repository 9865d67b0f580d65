"""Questions go first: people wait for them, and a commit that takes a little longer costs nobody anything.

One interpreter does both. A commit of a fleet's second is tens of milliseconds of work, and a question that came
meanwhile took that much longer. So between its steps, a few milliseconds apart, the writer lets those have their answer
who wait for one: a commit is spread over several questions instead of hitting one. For a bounded time, and not at all
while much waits to be committed, or a question for what is being committed.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final

_STEP_S: Final = 0.002
"""Work of less than that is not worth a turn of the loop."""


class Precedence:
    """One per collector, on its event loop's thread."""

    def __init__(self) -> None:
        self._asked = 0
        self._answered = asyncio.Event()
        self._answered.set()

    @contextlib.contextmanager
    def question(self) -> Iterator[None]:
        """Around the answering of one."""
        self._asked += 1
        self._answered.clear()
        try:
            yield
        finally:
            self._asked -= 1
            if not self._asked:
                self._answered.set()

    @property
    def is_asked(self) -> bool:
        """Whether a question is being answered."""
        return self._asked > 0

    async def answered(self, within_s: float, unless: asyncio.Event) -> None:
        """Return when no question is being answered, or after so long, or once the event is set."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._answered, unless)]
        try:
            await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()


class GivingWay:
    """What one piece of work gives way with: called between its steps, it waits for questions, but never for longer
    than `most_s` altogether, nor while `urgent` is set."""

    def __init__(self, precedence: Precedence, most_s: float, urgent: asyncio.Event) -> None:
        self._precedence = precedence
        self._left_s = most_s
        self._urgent = urgent
        self._began_s = time.perf_counter()

    async def __call__(self) -> None:
        """Wait, if there is somebody to wait for."""
        if time.perf_counter() - self._began_s < _STEP_S:
            return
        await asyncio.sleep(0)  # a question may just have come
        if self._precedence.is_asked and self._left_s > 0 and not self._urgent.is_set():
            waits_since_s = time.perf_counter()
            await self._precedence.answered(self._left_s, self._urgent)
            self._left_s -= time.perf_counter() - waits_since_s
        self._began_s = time.perf_counter()
