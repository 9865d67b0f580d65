"""Where slices begin and end: the places through which event loops run callbacks, replaced on their classes.

asyncio runs every callback (task steps, timers, readers, transports, signals) through `asyncio.events.Handle._run`.
uvloop's loop is a Python subclass of a C one, so its scheduling methods can be replaced; each passes the user's
callback on as an argument of one shared runner, so that nothing is allocated that would not be otherwise. (`call_at` is
left alone: it calls `call_later`.) uvloop's transports call their protocols without any of these: see
uvloop_protocols.py.

Cost model. Per slice: get_ident, one dict look-up, two clock readings, about ten attribute reads and writes, and one
word of the heartbeat; 0.4 µs on CPython 3.12. Nothing is allocated.

A trace ends at the first frame of this module: no function here may stand between a callback and what it calls.
"""

from __future__ import annotations

import asyncio
import asyncio.events
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from aiocop._stdlib import get_ident, perf_counter_ns
from aiocop.errors import HighSeverityBlockingIoException
from aiocop.patches import Patches
from aiocop.slice import Slices
from aiocop.uvloop_protocols import UvloopProtocols
from aiocop.watchdog import Watchdog
from aiocop_wire.heartbeat import BEGUN

RUNNER_MODULE: Final = __name__

_SCHEDULING: Final = ("call_soon", "call_soon_threadsafe")
_REGISTERING: Final = ("add_reader", "add_writer", "add_signal_handler")
_UVLOOP_TICK_S: Final = 0.001


class Loops:
    """The replaced methods of the loops' classes."""

    def __init__(self, slices: Slices, watchdog: Watchdog) -> None:
        self._slices = slices
        self._asyncio = Patches()
        self._uvloop = Patches()
        self._run_callback = callback_runner(slices, watchdog)
        self._protocols = UvloopProtocols(slices, self._run_callback)
        self._watchdog = watchdog

    def install(self) -> None:
        """Measure the callbacks of all loops from now on, running ones included."""
        handle_class = asyncio.events.Handle
        self._asyncio.replace(
            handle_class, "_run", lambda original: _handle_runner(self._slices, self._watchdog, original)
        )
        self._asyncio.replace(asyncio.events.TimerHandle, "_run", lambda _: _timer_runner(self._slices, handle_class))

    def install_uvloop(self, uvloop: ModuleType) -> None:
        """The same for uvloop, once it is imported."""
        loop_class = uvloop.Loop
        self._watchdog.uvloop_turns.install(uvloop)
        run_callback = self._run_callback
        for name in _SCHEDULING:
            self._uvloop.replace(loop_class, name, lambda original: _scheduling(original, run_callback))
        run_timer = _timer_callback_runner(self._slices, run_callback)
        self._uvloop.replace(loop_class, "call_later", lambda original: _delaying(original, run_callback, run_timer))
        for name in _REGISTERING:
            self._uvloop.replace(loop_class, name, lambda original: _registering(original, run_callback))
        self._uvloop.replace(
            loop_class, "call_exception_handler", lambda original: _exception_handler(original, self._slices)
        )
        self._protocols.install(uvloop)

    def pause(self) -> None:
        """While inactive: asyncio's callbacks cost nothing. uvloop's keep their runner, which lets them through: what
        is registered now (a reader) may still be there when measuring goes on.
        """
        self._asyncio.restore()

    def remove(self) -> None:
        """Give the methods back. Callbacks already scheduled on uvloop still come through the runner, unmeasured."""
        self._asyncio.restore()
        self._uvloop.restore()
        self._protocols.remove()
        self._watchdog.uvloop_turns.remove()


def _handle_runner(slices: Slices, watchdog: Watchdog, original: Callable[[Any], None]) -> Callable[[Any], None]:
    find_thread = slices.threads.get
    events = slices.events
    starvation = slices.starvation

    def _run(handle: Any) -> None:
        thread = find_thread(get_ident())
        if thread is None:
            thread = slices.new_thread("asyncio")
        # A loop inside a slice (nest_asyncio) adds to the slice around it.
        if (thread.started_ns and not slices.leave_implicit(thread)) or not slices.active:
            return original(handle)
        before = handle._context.run(events.provide) if events.providers else None  # noqa: SLF001 - as in CPython
        callback = handle._callback  # noqa: SLF001 - gone once the handle is cancelled by its own callback
        thread.started_ns = started_ns = perf_counter_ns()
        thread.beat[BEGUN] = started_ns
        if started_ns >= starvation.due_ns:
            started_ns = watchdog.attend(thread)
        try:
            return original(handle)
        finally:
            elapsed_ns = perf_counter_ns() - started_ns
            thread.slices += 1
            if thread.touched or elapsed_ns >= slices.threshold_ns:
                slices.finish(thread, elapsed_ns, callback, "asyncio", handle._context, before)  # noqa: SLF001 - as in CPython
            else:
                thread.started_ns = 0
                if thread.nested_ns:
                    thread.credited_ns += thread.nested_ns
                    thread.nested_ns = thread.allowed_ns = 0

    return _run


def _timer_runner(slices: Slices, handle_class: Any) -> Callable[[Any], None]:
    find_thread = slices.threads.get

    def _run(timer: Any) -> None:
        thread = find_thread(get_ident())
        if thread is not None and slices.active:
            try:
                # By the loop's own clock: one with a clock of its own (in tests) is not late by ours.
                lag_s = timer._loop.time() - timer._when  # noqa: SLF001 - as in CPython
                thread.health.ran_late(int(lag_s * 1e9))
            except Exception:  # noqa: BLE001 - the border to the service: a clock that fails is not the callback's fault
                slices.fault()
        # Looked up, not kept: whoever replaces it later replaces it for timers too.
        handle_class._run(timer)  # noqa: SLF001 - as in CPython

    return _run


def callback_runner(slices: Slices, watchdog: Watchdog) -> Callable[..., Any]:
    """What runs a callback as a slice, on loops that do not go through Handle._run."""
    find_thread = slices.threads.get
    events = slices.events
    starvation = slices.starvation

    def run_callback(callback: Callable[..., Any], *args: Any) -> Any:
        thread = find_thread(get_ident())
        if thread is None:
            if not slices.active:
                return callback(*args)
            thread = slices.new_thread("uvloop")
        if (thread.started_ns and not slices.leave_implicit(thread)) or not slices.active:
            return callback(*args)
        before = events.provide() if events.providers else None
        thread.started_ns = started_ns = perf_counter_ns()
        thread.beat[BEGUN] = started_ns
        if started_ns >= starvation.due_ns:
            started_ns = watchdog.attend(thread)
        try:
            return callback(*args)
        except Exception as error:
            # uvloop will report "Exception in callback <this runner>": keep what it should have said.
            thread.raised = (error, callback)
            raise
        finally:
            elapsed_ns = perf_counter_ns() - started_ns
            thread.slices += 1
            if thread.touched or elapsed_ns >= slices.threshold_ns:
                slices.finish(thread, elapsed_ns, callback, "uvloop", None, before)
            else:
                thread.started_ns = 0
                thread.nested_ns = thread.allowed_ns = 0

    return run_callback


def _timer_callback_runner(slices: Slices, run_callback: Callable[..., Any]) -> Callable[..., Any]:
    find_thread = slices.threads.get

    def run_timer(due_ns: int, callback: Callable[..., Any], *args: Any) -> Any:
        thread = find_thread(get_ident())
        if thread is not None and slices.active:
            thread.health.ran_late(perf_counter_ns() - due_ns)
        return run_callback(callback, *args)

    return run_timer


def _delaying(
    original: Callable[..., Any], run_callback: Callable[..., Any], run_timer: Callable[..., Any]
) -> Callable[..., Any]:
    def call_later(loop: Any, delay: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        # Not a delay: let uvloop say so about what the caller passed.
        try:
            due_ns = perf_counter_ns() + int(delay * 1e9) if delay >= _UVLOOP_TICK_S else 0
        except (TypeError, ValueError, OverflowError):
            due_ns = 0
        if not due_ns:
            # No timer: uvloop calls it soon, where the runner must be the one that `_scheduling` knows.
            return original(loop, delay, run_callback, callback, *args, **kwargs)
        return original(loop, delay, run_timer, due_ns, callback, *args, **kwargs)

    return call_later


def _scheduling(original: Callable[..., Any], run_callback: Callable[..., Any]) -> Callable[..., Any]:
    def schedule(loop: Any, callback: Any, *args: Any, context: Any = None) -> Any:
        # call_later with no delay comes here with the runner in place already.
        if callback is run_callback:
            return original(loop, callback, *args, context=context)
        # As tasks schedule their steps. Without *args the interpreter need not make a tuple and a dict to pass on.
        if not args:
            return original(loop, run_callback, callback, context=context)
        return original(loop, run_callback, callback, *args, context=context)

    return schedule


def _registering(original: Callable[..., Any], run_callback: Callable[..., Any]) -> Callable[..., Any]:
    def register(loop: Any, when: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
        # Not a callback: let uvloop say so about what the caller passed (it does where a signal is handled).
        if not callable(callback) or asyncio.iscoroutinefunction(callback):
            return original(loop, when, callback, *args, **kwargs)
        return original(loop, when, run_callback, callback, *args, **kwargs)

    return register


class _NamedHandle:
    """Stands for a uvloop handle in an error report, under the name of the user's callback."""

    def __init__(self, handle: Any, callback: Any) -> None:
        self._handle = handle
        self._callback = callback

    def __repr__(self) -> str:
        kind = type(self._handle).__name__
        return f"<{kind} {getattr(self._callback, '__qualname__', None) or repr(self._callback)}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def _exception_handler(original: Callable[..., Any], slices: Slices) -> Callable[..., Any]:
    def call_exception_handler(loop: Any, context: dict[str, Any]) -> Any:
        error = context.get("exception")
        if isinstance(error, HighSeverityBlockingIoException):
            raise error
        thread = slices.threads.get(get_ident())
        if thread is not None and thread.raised is not None:
            raised, callback = thread.raised
            thread.raised = None
            if raised is error:
                named = {"message": f"Exception in callback {callback}"}
                if "handle" in context:
                    named["handle"] = _NamedHandle(context["handle"], callback)  # type: ignore[assignment]
                context = {**context, **named}
        return original(loop, context)

    return call_exception_handler
