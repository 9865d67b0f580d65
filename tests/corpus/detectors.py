"""The detectors that the corpus is run under, each set up as its documentation says, each translated to `Observed`.

All get the same threshold. None of them is imported before it is asked for: each lives in an environment of its own.
"""

import importlib
import logging
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from tests.corpus.expectation import Observed

THRESHOLD_MS = 30


class Detector:
    """What the harness asks of one."""

    debug = False
    """Whether the loop runs in asyncio's debug mode."""
    raises: tuple[type[BaseException], ...] = ()
    """How it ends the code it finds fault with."""

    def __init__(self) -> None:
        self.observed: list[Observed] = []

    def set_up(self) -> None:
        """Once per process, before any loop exists."""

    def activate(self) -> None:
        """At the start of the first loop, where the quick start of its documentation puts it."""

    def around(self) -> AbstractAsyncContextManager[object]:
        """What surrounds the watched code."""
        return nullcontext()

    def take(self) -> list[Observed]:
        """What was reported since the last time."""
        taken, self.observed = self.observed, []
        return taken


class Aiocop(Detector):
    """Ours and the published one: the same names, whichever is installed."""

    def __init__(self) -> None:
        super().__init__()
        self._aiocop = importlib.import_module("aiocop")
        self._events: list[Any] = []

    def set_up(self) -> None:
        self._aiocop.patch_audit_functions()
        self._aiocop.start_blocking_io_detection()
        self._aiocop.detect_slow_tasks(threshold_ms=THRESHOLD_MS, on_slow_task=self._events.append)

    def activate(self) -> None:
        self._aiocop.activate()

    def take(self) -> list[Observed]:
        events, self._events[:] = list(self._events), []
        return [self._translate(event) for event in events]

    def _translate(self, event: Any) -> Observed:
        fields = asdict(event)
        infos, samples = fields["blocking_events"], fields["cpu_stack_samples"]
        places = [info.get("call_site") or info["entry_point"] for info in infos]
        # The published event names no culprit of its own: every call it lists counts, and the most frequent sample.
        named = (
            [fields["call_site"]] if "call_site" in fields else [*places, *(one["entry_point"] for one in samples[:1])]
        )
        return Observed(
            exceeded=fields["exceeded_threshold"],
            elapsed_ms=fields["elapsed_ms"],
            named=named,
            calls=[(info["event"].partition("(")[0], place) for info, place in zip(infos, places, strict=True)],
            trace=[place for one in [*infos, *samples] for place in one["trace"].split(" <- ")],
            cause=fields.get("cause") if "call_site" in fields else None,
        )


class AsyncioDebug(Detector):
    """`PYTHONASYNCIODEBUG=1` with `loop.slow_callback_duration` at the threshold: what it logs."""

    debug = True
    _PLACE = re.compile(r"(/[^\s:<>]+:\d+)")

    def set_up(self) -> None:
        logging.getLogger("asyncio").addHandler(_Capture(self._log))

    def around(self) -> AbstractAsyncContextManager[object]:
        importlib.import_module("asyncio").get_running_loop().slow_callback_duration = THRESHOLD_MS / 1000
        return nullcontext()

    def _log(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Executing "):
            elapsed_ms = float(text.rpartition(" took ")[2].partition(" ")[0]) * 1000
            self.observed.append(Observed(exceeded=True, elapsed_ms=elapsed_ms, named=self._PLACE.findall(text)))


class _Capture(logging.Handler):
    def __init__(self, then: Any) -> None:
        super().__init__()
        self._then = then

    def emit(self, record: logging.LogRecord) -> None:
        self._then(record)


class Blockbuster(Detector):
    """It raises at the call, before it blocks: there is no duration."""

    def set_up(self) -> None:
        blockbuster = importlib.import_module("blockbuster")
        inner = importlib.import_module("blockbuster.blockbuster")
        original = blockbuster.BlockingError.__init__

        def note(error: Any, function: str) -> None:
            stack = [one for one in traceback.extract_stack()[:-1] if one.filename != inner.__file__]
            places = [f"{one.filename}:{one.lineno}:{one.name}" for one in reversed(stack)]
            operation = function.partition("(")[0].replace(" ", ".")
            self.observed.append(
                Observed(exceeded=True, named=places[:1], calls=[(operation, places[0])], trace=places)
            )
            original(error, function)

        self.raises = (blockbuster.BlockingError,)
        blockbuster.BlockingError.__init__ = note
        blockbuster.BlockBuster().activate()


class Pyleak(Detector):
    """`no_event_loop_blocking` around the code, with its check interval as short as it makes sense.

    The durations it prints are multiples of the threshold that passed, not measurements.
    """

    @asynccontextmanager
    async def around(self) -> AsyncIterator[None]:
        pyleak = importlib.import_module("pyleak")
        try:
            async with pyleak.no_event_loop_blocking(
                action="raise", threshold=THRESHOLD_MS / 1000, check_interval=0.01
            ):
                yield
        except pyleak.EventLoopBlockError as error:
            for block in error.blocking_events:
                places = [f"{one.filename}:{one.lineno}:{one.name}" for one in reversed(block.blocking_stack or [])]
                self.observed.append(Observed(exceeded=True, named=places[:1], trace=places))


DETECTORS: dict[str, type[Detector]] = {
    "ours": Aiocop,
    "aiocop": Aiocop,
    "asyncio-debug": AsyncioDebug,
    "blockbuster": Blockbuster,
    "pyleak": Pyleak,
}
