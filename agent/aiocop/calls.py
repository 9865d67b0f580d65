"""Where blocking calls are seen: wrappers around public functions, and Python's audit hook.

A wrapper measures; the hook only learns that a call starts, but sees it through whatever name it is made. Where an
operation has both, the hook ignores the event that the wrapper's own call raises, and catches the rest.

Cost model, per call. Outside a slice: get_ident and one dict look-up (0.1 µs). Inside: the walk to the call site, two
clock readings, one update of counters; 1 to 1.5 µs on CPython 3.12 when application code makes the call itself.
The hook runs for every audit event of the process and leaves after one dict look-up unless the event is an operation's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, Final

from aiocop._stdlib import get_ident, getframe, perf_counter_ns
from aiocop.allowing import allowed_since_ns
from aiocop.catalogue import Operation
from aiocop.detail import COUNTS, LONG_CALL_NS
from aiocop.errors import HighSeverityBlockingIoException
from aiocop.loop_thread import LoopThread
from aiocop.patches import Patches
from aiocop.slice import Slices

_NON_BLOCKING: Final = 0.0


class Calls:
    """The wrappers and the audit hook of one agent."""

    def __init__(self, slices: Slices, operations: Iterable[Operation]) -> None:
        self.operations: dict[str, Operation] = {operation.name: operation for operation in operations}
        self.patched: list[str] = []
        """Names of the operations that are wrapped."""
        self._slices = slices
        self._patches = Patches()
        self._by_event: dict[str, Operation] = {}
        """What the hook listens to. Emptied, never replaced: the hook holds on to it."""
        self._waiting: dict[str, list[Operation]] = {}
        """Operations to wrap once a module is imported, by its name."""
        self._hooked = False
        self._installed = False
        self._importing: set[str] = set()
        """Awaited modules whose import has begun. Looked at by the hook at every audit event; empty but for moments."""
        self._on_import: dict[str, Callable[[Any], None]] = {}

    # --- installing ---------------------------------------------------------------------------------------------------

    def install_wrappers(self) -> None:
        """Wrap the functions of the catalogue; those of modules nobody has imported yet, when somebody does."""
        self._installed = True
        for operation in self.operations.values():
            self._wrap_or_wait(operation)

    def add(self, operation: Operation) -> None:
        """Put an operation into the catalogue; wrap it if the others are wrapped."""
        self.operations[operation.name] = operation
        if self._installed:
            self._wrap_or_wait(operation)

    def _wrap_or_wait(self, operation: Operation) -> None:
        if not operation.targets:
            return
        missing = [name for name in operation.modules if name not in sys.modules]
        if missing:
            self._waiting.setdefault(missing[-1], []).append(operation)
        elif not self._wrap(operation) and not operation.audit_events:
            # Not there yet: look again whenever a module on the way to it has been imported.
            for name in _prefixes(operation.targets[0]):
                if name not in sys.modules:
                    self._waiting.setdefault(name, []).append(operation)

    def _wrap(self, operation: Operation) -> bool:
        wrapped = [self._wrap_target(operation, target) for target in operation.targets]
        if any(wrapped) and operation.name not in self.patched:
            self.patched.append(operation.name)
        return any(wrapped)

    def _wrap_target(self, operation: Operation, target: str) -> bool:
        owner_name, _, name = target.rpartition(".")
        owner = resolve(owner_name)
        if owner is None:
            return False
        slices = self._slices

        def make(original: Any) -> Any:
            if isinstance(owner, type) or isinstance(original, FunctionType):
                return measuring_method(slices, operation, original)
            return MethodType(_function(slices, operation, original), _Target(owner_name, name))

        return self._patches.replace(owner, name, make)

    def install_hook(self) -> None:
        """Listen to audit events. A hook can never be removed: without events to listen to, it returns at once."""
        for operation in self.operations.values():
            for event in operation.audit_events:
                self._by_event.setdefault(event, operation)
        if not self._hooked:
            self._hooked = True
            sys.addaudithook(self._make_hook())

    @property
    def hook_installed(self) -> bool:
        return bool(self._by_event)

    def when_imported(self, module: str, then: Callable[[Any], None]) -> None:
        """Call `then` with a module: now, or soon after somebody has imported it, which needs the hook."""
        imported = sys.modules.get(module)
        if imported is None:
            self._on_import[module] = then
        else:
            then(imported)

    def remove(self) -> None:
        """Give every function back, and let the hook return at once."""
        self._installed = False
        self._by_event.clear()
        self._waiting.clear()
        self._importing.clear()
        self._on_import.clear()
        self.patched.clear()
        self._patches.restore()

    # --- the hook -----------------------------------------------------------------------------------------------------

    def _make_hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        find_operation = self._by_event.get
        slices = self._slices
        find_thread = slices.threads.get
        waiting = self._waiting
        on_import = self._on_import
        pending = self._importing
        modules = sys.modules

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if pending:
                self._look_for_imports()
            operation = find_operation(event)
            if operation is None:
                return
            if event == "import":
                # An awaited module's import begins, or has begun: importlib.import_module() raises no event for its own
                # module, but what that imports does. One of the events that follow finds the module there.
                pending.update([name for name in (*waiting, *on_import) if name == args[0] or name in modules])
            thread = find_thread(get_ident())
            if thread is None or not (thread.started_ns or slices.enter_implicit(thread)):
                return
            running = thread.operation
            if running is not None and event in running.audit_events:
                return
            try:
                if slices.level >= COUNTS and not slices.events.raising_now():
                    slices.count_only(thread, operation)
                    return
                frame = getframe(1)
                traced = None
                if slices.events.wanted:
                    traced = slices.traced_calls_at(thread, operation, frame)
                    counters = traced.counters
                else:
                    counters = slices.counters_at(thread, operation, frame)
                if counters.site.silent or (slices.allowing_used and allowed_since_ns()):
                    slices.pass_over(thread, counters, 0)
                    return
                thread.record_start(counters)
                if slices.disclosure is not None:
                    slices.disclosure.hold(thread, counters, args, {}, 0)
                if traced is not None:
                    slices.describe_call(thread, traced, args, beforehand=True)
            except HighSeverityBlockingIoException:
                raise
            except Exception:  # noqa: BLE001 - the border to the service: an audit hook that raises ends the user's call
                slices.fault()

        return hook

    def _look_for_imports(self) -> None:
        for name in list(self._importing):
            module = sys.modules.get(name)
            if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
                continue
            self._importing.discard(name)
            for operation in self._waiting.pop(name, ()):
                self._wrap(operation)
            then = self._on_import.pop(name, None)
            if then is not None:
                then(module)


class _Target:
    """What a wrapper of a built-in function is bound to.

    Built-in functions do not turn into methods when they are class attributes (`class C: stat = os.stat`); a bound
    method does not either, a plain function would. Pickled by name, like the function it stands for.
    """

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle stores a bound method as getattr(its object, its name): as the object, the module does.
        return import_module, (self._module,)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Target:
        return self


def _prefixes(target: str) -> list[str]:
    """`a`, `a.b` of `a.b.function`."""
    parts = target.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def resolve(dotted: str) -> Any:
    """The module or class of a dotted name; None where there is none."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = sys.modules.get(".".join(parts[:length]))
        if module is not None:
            found: Any = module
            for part in parts[length:]:
                found = getattr(found, part, None)
            return found
    # Nobody's module is imported on the agent's account, except a standard one.
    return import_module(dotted) if dotted in sys.stdlib_module_names else None


def _function(slices: Slices, operation: Operation, original: Any) -> FunctionType:
    find_thread = slices.threads.get
    measured = _measured_by(operation)

    def function(_target: _Target, /, *args: Any, **kwargs: Any) -> Any:
        thread = find_thread(get_ident())
        if thread is None or not (thread.started_ns or slices.enter_implicit(thread)):
            return original(*args, **kwargs)
        return measured(slices, thread, operation, original, args, kwargs)

    return function  # type: ignore[return-value]


def measuring_method(slices: Slices, operation: Operation, original: Any) -> FunctionType:
    """A function for a class that makes a call of `operation`, and measures it inside a slice."""
    find_thread = slices.threads.get
    measured = _measured_by(operation)
    is_socket = operation.socket

    def method(*args: Any, **kwargs: Any) -> Any:
        thread = find_thread(get_ident())
        if (
            thread is None
            or (is_socket and args[0].gettimeout() == _NON_BLOCKING)
            or not (thread.started_ns or slices.enter_implicit(thread))
        ):
            return original(*args, **kwargs)
        return measured(slices, thread, operation, original, args, kwargs)

    return method  # type: ignore[return-value]


def _measured_by(operation: Operation) -> Callable[..., Any]:
    return measure_wait if operation.counts_from_ns else measure_call


def measure_call(
    slices: Slices,
    thread: LoopThread,
    operation: Operation,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call inside a slice and count it. Called by a wrapper: the caller's caller made the call."""
    if slices.level >= COUNTS and not slices.events.raising_now():
        return _count_call(slices, thread, operation, original, args, kwargs)
    call = None
    try:
        if slices.events.wanted:
            traced = slices.traced_calls_at(thread, operation, getframe(2))
            counters = traced.counters
            if not counters.site.silent and not (slices.allowing_used and allowed_since_ns()):
                call = slices.describe_call(thread, traced, args, beforehand=True)
        else:
            counters = slices.counters_at(thread, operation, getframe(2))
    except HighSeverityBlockingIoException:
        raise
    except Exception:  # noqa: BLE001 - the border to the service: our fault must not become the caller's
        slices.fault()
        return original(*args, **kwargs)
    outer = thread.operation
    outer_nested_ns = thread.nested_ns
    thread.nested_ns = 0
    thread.operation = operation
    started_ns = perf_counter_ns()
    try:
        return original(*args, **kwargs)
    finally:
        elapsed_ns = perf_counter_ns() - started_ns
        own_ns = elapsed_ns - thread.nested_ns
        thread.nested_ns = outer_nested_ns + elapsed_ns
        thread.operation = outer
        if own_ns >= slices.threshold_ns:
            own_ns -= slices.others_ns(thread, started_ns, elapsed_ns, own_ns)
            slices.note_long_call(thread, counters, own_ns, getframe(2))
        if counters.site.silent or (slices.allowing_used and allowed_since_ns()):
            if counters.site.summary and own_ns >= LONG_CALL_NS:
                _record_ended(slices, thread, operation, args, kwargs, getframe(2), own_ns)
            else:
                slices.pass_over(thread, counters, own_ns)
        else:
            thread.record(counters, own_ns)
            if slices.disclosure is not None:
                slices.hold_arguments(thread, counters, args, kwargs, own_ns)
            if call is not None:
                call.duration_ns = own_ns


def _count_call(
    slices: Slices,
    thread: LoopThread,
    operation: Operation,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call and count it at its operation, without its time: in a slow slice, samples have to tell. Only a long
    one is looked at, once it is over.
    """
    outer = thread.operation
    outer_nested_ns = thread.nested_ns
    thread.operation = operation
    started_ns = perf_counter_ns()
    try:
        return original(*args, **kwargs)
    finally:
        elapsed_ns = perf_counter_ns() - started_ns
        thread.operation = outer
        if elapsed_ns < LONG_CALL_NS:
            slices.count_only(thread, operation)
        else:
            own_ns = elapsed_ns - (thread.nested_ns - outer_nested_ns)
            thread.nested_ns = outer_nested_ns + elapsed_ns
            _record_ended(slices, thread, operation, args, kwargs, getframe(3), own_ns)


def measure_wait(
    slices: Slices,
    thread: LoopThread,
    operation: Operation,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Make a call that blocks only if it has to wait, and count it if it did. Called as `measure_call` is."""
    outer = thread.operation
    # A wait inside a wait (Event.wait calls Condition.wait) is the same wait.
    if outer is not None and outer.counts_from_ns:
        return original(*args, **kwargs)
    frame = getframe(2)
    outer_nested_ns = thread.nested_ns
    thread.nested_ns = 0
    thread.operation = operation
    started_ns = perf_counter_ns()
    try:
        return original(*args, **kwargs)
    finally:
        elapsed_ns = perf_counter_ns() - started_ns
        own_ns = elapsed_ns - thread.nested_ns
        thread.nested_ns = outer_nested_ns + elapsed_ns
        thread.operation = outer
        if own_ns >= slices.threshold_ns:
            own_ns -= slices.others_ns(thread, started_ns, elapsed_ns, own_ns)
        if own_ns >= operation.counts_from_ns:
            _record_ended(slices, thread, operation, args, kwargs, frame, own_ns)
        else:
            thread.passed_over += 1


def _record_ended(
    slices: Slices,
    thread: LoopThread,
    operation: Operation,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    frame: Any,
    own_ns: int,
) -> None:
    try:
        traced = None
        if slices.events.wanted:
            traced = slices.traced_calls_at(thread, operation, frame, own_ns)
            counters = traced.counters
        else:
            counters = slices.counters_at(thread, operation, frame, own_ns)
        if counters.site.silent or (slices.allowing_used and allowed_since_ns()):
            slices.pass_over(thread, counters, own_ns)
            return
        thread.record(counters, own_ns)
        if own_ns >= slices.threshold_ns:
            slices.note_long_call(thread, counters, own_ns, frame)
        if slices.disclosure is not None:
            slices.disclosure.hold(thread, counters, args, kwargs, own_ns)
        if traced is not None:
            call = slices.describe_call(thread, traced, args, beforehand=False)
            if call is not None:
                call.duration_ns = own_ns
    except Exception:  # noqa: BLE001 - the border to the service: our fault must not become the caller's
        slices.fault()
