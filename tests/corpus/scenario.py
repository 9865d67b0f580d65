"""What a scenario of the corpus is: a tiny program that freezes its loop at a known line, or one that does not.

    @freezes("call_later", operation="time.sleep", cause="wait")
    async def call_later():
        def blocks():
            with stopwatch:
                time.sleep(0.06)  # <- culprit
        ...

The culprit is the line marked `# <- culprit`; the stopwatch says how long it really took, so that a slow machine proves
nothing wrong. What must not be measured goes into `prepare`, which runs before the detector is set up and whose result
the scenario is called with. A scenario that is a coroutine function runs as a task of a fresh loop; a plain function is
given the harness and runs loops itself. Nothing here needs more than the standard library: the same files are run by
every detector in an environment of its own.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

MARK = "# <- culprit"
FREEZE, CALL, INNOCENT = "freeze", "call", "innocent"


@dataclass(frozen=True)
class Place:
    """A line that may be named as the culprit, and the functions that contain it."""

    file: str
    line: int
    functions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Scenario:
    """One line of what is caught, or of what is never reported."""

    group: str
    name: str
    says: str
    """In the words of the issue."""
    kind: str
    """`freeze`: an event over the threshold is due; `call`: the call must be named; `innocent`: nothing is."""
    function: Callable[..., Any]
    culprits: tuple[Place, ...] = ()
    pseudo_culprits: tuple[str, ...] = ()
    """`<gc>`, `<loop>`: where no line of the application is to blame."""
    operation: str | None = None
    causes: tuple[str, ...] = ()
    prepare: Callable[[], Any] | None = None
    since: tuple[int, int] = (3, 10)
    """The first Python that can run it."""
    requires: tuple[str, ...] = ()
    """Modules beyond the standard library."""

    def why_not(self) -> str | None:
        """Why it cannot run in this interpreter; None where it can."""
        if sys.version_info < self.since:
            return f"needs Python {self.since[0]}.{self.since[1]}"
        missing = [name for name in self.requires if not _importable(name)]
        return f"needs {', '.join(missing)}" if missing else None


class Stopwatch:
    """Times what the culprit really took. `with stopwatch:` leaves no frame on the stack."""

    def __init__(self) -> None:
        self.laps_ms: list[float] = []

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.laps_ms.append((time.perf_counter() - self._started) * 1000)


stopwatch = Stopwatch()
SCENARIOS: dict[str, Scenario] = {}


def freezes(
    says: str,
    *,
    culprit: str | None = None,
    cause: str | tuple[str, ...] = (),
    marked_in: Callable[..., Any] | None = None,
    **fields: Any,
) -> Any:
    """Declare a scenario that freezes its loop, at the lines marked in it (or elsewhere) or at a pseudo call site."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        pseudo = (culprit,) if culprit else ()
        causes = (cause,) if isinstance(cause, str) else cause
        places = marked_places(marked_in or function)
        assert places or pseudo, f"{function.__name__} marks no line with {MARK!r}"
        return _add(function, says, FREEZE, culprits=places, pseudo_culprits=pseudo, causes=causes, **fields)

    return declare


def innocent(says: str, **fields: Any) -> Any:
    """Declare a scenario in which no loop is frozen."""
    return lambda function: _add(function, says, INNOCENT, **fields)


def _add(function: Callable[..., Any], says: str, kind: str, **fields: Any) -> Callable[..., Any]:
    group = Path(inspect.getfile(function)).stem
    name = f"{group}.{function.__name__}"
    assert name not in SCENARIOS, f"{name} is declared twice"
    SCENARIOS[name] = Scenario(group, name, says, kind, function, **fields)
    return function


def marked_places(function: Callable[..., Any]) -> tuple[Place, ...]:
    """The lines of a function that are marked as culprits, with the innermost functions they stand in."""
    source, first = inspect.getsourcelines(function)
    file = Path(inspect.getfile(function)).name
    marked = [first + offset for offset, text in enumerate(source) if MARK in text]
    return tuple(Place(file, line, frozenset(_functions_at(function.__code__, line))) for line in marked)


def _functions_at(code: CodeType, line: int) -> list[str]:
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _functions_at(const, line)]
    if inner:
        # A comprehension or lambda on the line is as good as the function around it: 3.12 inlines the one.
        return [*inner, code.co_name] if all(name.startswith("<") for name in inner) else inner
    return [code.co_name] if any(at == line for _, _, at in code.co_lines()) else []


def _importable(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def call_at_its_line(
    operation: str, function: Callable[[Any], object], prepare: Callable[[], Any], **fields: Any
) -> None:
    """Declare a scenario that makes one call of the catalogue, however short: a lambda in a line of its own."""
    code = function.__code__

    async def call_once(prepared: Any) -> None:
        await asyncio.sleep(0)
        with contextlib.suppress(Exception):  # that it was called is what counts
            function(prepared)

    place = Place(Path(code.co_filename).name, code.co_firstlineno, frozenset((code.co_name,)))
    call_once.__name__ = operation.replace(".", "_")
    name = f"{Path(code.co_filename).stem}.{call_once.__name__}"
    assert name not in SCENARIOS, f"{name} is declared twice"
    SCENARIOS[name] = Scenario(
        "catalogue", name, f"`{operation}`", CALL, call_once, (place,), operation=operation, prepare=prepare, **fields
    )
