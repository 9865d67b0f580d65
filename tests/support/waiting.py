"""Waiting for a condition, with a deadline: tests never sleep for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

DEADLINE_S = 60.0
"""Generous: the machine may be busy with other things. Only a failing test takes this long."""


def wait_until(condition: Callable[[], _T], what: str, *, deadline_s: float = DEADLINE_S) -> _T:
    """The first true value of `condition()`. Fails with `what` was waited for when the deadline passes."""
    give_up_at = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up_at:
            raise AssertionError(f"waited {deadline_s:.0f} s in vain for: {what}")
        time.sleep(0.005)
