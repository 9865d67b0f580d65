"""Who a callback is: the task whose step it is, its name, the function behind it."""

from __future__ import annotations

from types import CodeType
from typing import Any


def task_of(callback: Any) -> Any:
    """The task whose step a callback is; None for another callback."""
    owner = getattr(callback, "__self__", None)
    return owner if owner is not None and hasattr(owner, "get_coro") else None


def task_name(callback: Any) -> str:
    """The name of the task whose step a callback is; empty for another callback."""
    owner = getattr(callback, "__self__", None)
    get_name = getattr(owner, "get_name", None)
    return str(get_name()) if get_name is not None and hasattr(owner, "get_coro") else ""


def callback_code(callback: Any) -> tuple[object, CodeType] | None:
    """Module name and code of the function behind a callback: a task's coroutine, a function, a bound method."""
    task = task_of(callback)
    if task is not None:
        coroutine = task.get_coro()
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
        if code is None:
            return None
        return (frame.f_globals.get("__name__") if frame is not None else None), code
    function = getattr(callback, "func", callback)
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    return getattr(function, "__module__", None), code
