"""What one slice, one blocking call and one frame of a walk cost on this machine: the agent's own code, timed once.

It runs the real thing on an agent's insides of its own, which nobody ships, on the thread of whoever asks. Of several
short batches the fastest counts, because what else the machine does only adds to it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, Final

from aiocop._stdlib import perf_counter_ns
from aiocop.aggregate import Aggregate
from aiocop.calls import measuring_method
from aiocop.catalogue import Operation
from aiocop.detail import COUNTS, SHORT_WALKS
from aiocop.events import Events
from aiocop.frames import FrameNames
from aiocop.governor import Governor, UnitCosts
from aiocop.loops import RUNNER_MODULE, callback_runner
from aiocop.slice import Slices
from aiocop.traces import Traces
from aiocop.watchdog import Watchdog
from aiocop_wire import FRAME_APPLICATION, FRAME_LIBRARY

_BATCHES: Final = 5
_ROUNDS: Final = 20
_FRAMES: Final = 10
_COLD: Final = 1.25
"""How much more a real loop pays, whose caches hold other things too: loops with 200 call sites took 1.1 to 1.45 times
what these figures make, in CPU time with the agent less without (CPython 3.11; docs/architecture.md)."""
_NEVER_NS: Final = 1 << 62
_OPERATION: Final = Operation("calibration", 1, "io", "")
_APPLICATION: Final = "aiocop calibrates: application"
_LIBRARY: Final = "aiocop calibrates: library"


def calibrate() -> UnitCosts:
    """Takes some 2 ms."""
    names = FrameNames(runner_module=RUNNER_MODULE)
    names.kinds.update({_APPLICATION: FRAME_APPLICATION, _LIBRARY: FRAME_LIBRARY})
    traces = Traces(names)
    slices = Slices(threshold_ns=_NEVER_NS, traces=traces, aggregate=Aggregate(traces), events=Events(traces))
    slices.active = True
    thread = slices.this_thread()
    run_callback = callback_runner(slices, Watchdog(slices, Governor(slices, calibrate)))
    call = measuring_method(slices, _OPERATION, _nothing)
    make_calls = _function_of(_make_calls, _APPLICATION)
    use_library = _function_of(_use_library, _APPLICATION)
    descend = _function_of(_descend, _LIBRARY)

    def in_a_slice(function: Callable[..., object], *args: object) -> float:
        thread.started_ns = 1
        taken_ns = _timed(function, *args)
        slices.reset(thread)
        return taken_ns

    bare_ns = _fastest(lambda: in_a_slice(make_calls, _nothing, _ROUNDS))
    called_ns = _fastest(lambda: in_a_slice(make_calls, call, _ROUNDS))
    library_ns = _fastest(lambda: in_a_slice(use_library, descend, 1, call, _ROUNDS))
    deep_ns = _fastest(lambda: in_a_slice(use_library, descend, 1 + _FRAMES, call, _ROUNDS))
    empty_ns = _fastest(lambda: _timed(_run_slices, run_callback, make_calls, _nothing))
    filled_ns = _fastest(lambda: _timed(_run_slices, run_callback, make_calls, call))
    unsliced_ns = _fastest(lambda: _timed(_run_slices, _run_bare, make_calls, _nothing))
    slices.level = SHORT_WALKS
    cut_ns = _fastest(lambda: in_a_slice(use_library, descend, 1 + _FRAMES, call, _ROUNDS))
    slices.level = COUNTS
    counted_ns = _fastest(lambda: in_a_slice(make_calls, call, _ROUNDS))
    warm_ns = (
        empty_ns - unsliced_ns,
        filled_ns - empty_ns - (called_ns - bare_ns),
        called_ns - bare_ns,
        library_ns - called_ns,
        (deep_ns - library_ns) / _FRAMES,
        cut_ns - called_ns,
        counted_ns - bare_ns,
    )
    return UnitCosts(*[_COLD * max(taken_ns, 0.0) for taken_ns in warm_ns])


def _fastest(batch: Callable[[], float]) -> float:
    """Nanoseconds of one of the _ROUNDS of a batch."""
    fastest_ns = float("inf")
    for _ in range(_BATCHES):
        fastest_ns = min(fastest_ns, batch())
    return fastest_ns / _ROUNDS


def _timed(function: Callable[..., object], *args: object) -> float:
    started_ns = perf_counter_ns()
    function(*args)
    return perf_counter_ns() - started_ns


def _nothing() -> None:
    return None


def _run_slices(run: Callable[..., object], make_calls: Callable[..., object], call: Callable[[], object]) -> None:
    for _ in range(_ROUNDS):
        run(make_calls, call, 1)


def _run_bare(callback: Callable[..., object], *args: object) -> object:
    return callback(*args)


def _make_calls(call: Callable[[], object], rounds: int) -> None:
    for _ in range(rounds):
        call()


def _use_library(descend: Callable[..., object], depth: int, call: Callable[[], object], rounds: int) -> None:
    descend(depth, call, rounds)


def _descend(depth: int, call: Callable[[], object], rounds: int) -> None:
    if depth > 1:
        _descend(depth - 1, call, rounds)
        return
    for _ in range(rounds):
        call()


def _function_of(function: Callable[..., object], module: str) -> Callable[..., object]:
    """The function as if a module of this name had made it: a walk asks a frame for nothing else."""
    code: CodeType = function.__code__
    namespace: dict[str, Any] = {"__name__": module, "__builtins__": __builtins__}
    namespace[code.co_name] = made = FunctionType(code, namespace)
    return made
