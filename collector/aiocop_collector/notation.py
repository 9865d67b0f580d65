"""How places and times are written, wherever somebody reads them: answers, messages, tables."""

from datetime import datetime, timezone
from functools import lru_cache
from typing import Final

_TIMES_REMEMBERED: Final = 4096
"""A page shows a hundred, and most of them the next one shows again."""


def place(path: str, line: int, function: str) -> str:
    """`shop/orders.py:42:create_order`; a pseudo call site such as `<gc>` is shown by its name alone."""
    if path.startswith("<") and not function:
        return path
    return f"{path}:{line}:{function}"


@lru_cache(maxsize=_TIMES_REMEMBERED)
def to_rfc3339(at_ms: int) -> str:
    """`2026-01-31T12:00:00Z`; with milliseconds where there are any."""
    seconds, milliseconds = divmod(at_ms, 1000)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds:03}Z" if milliseconds else f"{text}Z"
