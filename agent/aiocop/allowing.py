"""What is known to block and accepted: rules for call sites, and `with allow_blocking():` for a block of code.

A rule is matched once per site, when the site is first seen or the rules change; afterwards an allowed call costs what
any call costs. What is allowed is not counted, not reported, and its time is not held against its slice; each rule
counts its matches, so that dead rules can be found.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from fnmatch import fnmatchcase
from types import TracebackType
from typing import TYPE_CHECKING

from aiocop._stdlib import perf_counter_ns
from aiocop_wire import Frame
from aiocop_wire.light_typing import Protocol

if TYPE_CHECKING:
    from contextvars import Token

_entered_ns: ContextVar[int] = ContextVar("aiocop_allow_blocking", default=0)
"""perf_counter_ns at which the current context entered `with allow_blocking():`; 0 outside of one."""


class AllowRule:
    """Allows what matches all of its patterns (`*` and `?` as in file names; None matches everything)."""

    __slots__ = ("function", "matches", "module", "operation")

    def __init__(self, operation: str | None, module: str | None, function: str | None) -> None:
        self.operation = operation
        self.module = module
        self.function = function
        self.matches = 0
        """Allowed calls. Written by loop threads; two that race may lose one."""

    def __str__(self) -> str:
        given = (("operation", self.operation), ("module", self.module), ("function", self.function))
        return "allow(" + ", ".join(f"{name}={value!r}" for name, value in given if value is not None) + ")"

    def allows(self, operation: str, frames: tuple[Frame, ...]) -> bool:
        """Whether it matches an operation whose call went through `frames`: one frame must match both its patterns."""
        if self.operation is not None and not fnmatchcase(operation, self.operation):
            return False
        if self.module is None and self.function is None:
            return True
        return any(self._matches_frame(frame) for frame in frames)

    def _matches_frame(self, frame: Frame) -> bool:
        module = frame.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        wanted = self.module
        if wanted is not None and not (fnmatchcase(module, wanted) or module.startswith(wanted + ".")):
            return False
        return self.function is None or fnmatchcase(frame.function, self.function)


class AllowsTime(Protocol):
    """What is told of allowed time: the slices."""

    allowing_used: bool

    def allow_since(self, entered_ns: int) -> None:
        """The running slice was allowed to block since then."""


class AllowBlocking:
    """`with allow_blocking():` — what blocks in the block, in this task, is accepted."""

    def __init__(self, slices: AllowsTime) -> None:
        self._slices = slices
        self._token: Token[int] | None = None

    def __enter__(self) -> AllowBlocking:
        self._slices.allowing_used = True
        self._token = _entered_ns.set(perf_counter_ns())
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._slices.allow_since(allowed_since_ns())
            _entered_ns.reset(self._token)


def allowed_since_ns(context: Context | None = None) -> int:
    """When a context (None is the current one) entered the `with allow_blocking():` it is in; 0 outside of one."""
    return _entered_ns.get() if context is None else context.get(_entered_ns, 0)
