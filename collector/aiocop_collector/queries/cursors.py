"""Where a page of rows ended: opaque to clients, checked like any other input.

A cursor holds the window of the first page, because `since=1h` would mean another hour a minute later; a digest of the
question, because it makes no sense to any other; and the sort value and key of the last row, so that the next page
starts after that row wherever it is by then. No offset: nothing is repeated or skipped while nothing changes.
"""

import base64
import json
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from typing import Final

from aiocop_collector.queries.errors import BadParameterError
from aiocop_collector.queries.groupings import Grouping, Key, Sort
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.schema import RESOLUTIONS

_VERSION: Final = 1
_MAX_CHARACTERS: Final = 16_384
_LAST_SECOND_S: Final = 253_402_300_799  # of the year 9999
_INT64: Final = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page, and the window it was read from."""

    window: Window
    value: int | float
    """The row's sort value, in the unit of its column: a float for p99, else an integer."""
    key: Key


def question_digest(*parts: object) -> str:
    """A short text that tells questions apart; a cursor is only good for its own."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def to_text(cursor: Cursor, digest: str) -> str:
    """The cursor as a client gets it: URL-safe."""
    window = cursor.window
    items = [_VERSION, digest, window.since_s, window.until_s, window.resolution.seconds, cursor.value, *cursor.key]
    raw = json.dumps(items, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def from_text(text: str, digest: str, grouping: Grouping, sort: Sort) -> Cursor:
    """The cursor that `to_text` gave for the same question. Raises BadParameterError."""
    broken = BadParameterError("cursor", "it was not made by this collector; start again without it")
    if len(text) > _MAX_CHARACTERS:
        raise broken
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        items = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    # RecursionError: brackets nested deeper than the parser goes.
    except (ValueError, RecursionError) as error:
        raise broken from error
    if not isinstance(items, list) or len(items) < 2 or items[0] != _VERSION:
        raise broken
    if items[1] != digest:
        raise BadParameterError(
            "cursor", "it belongs to a question with other parameters; repeat those it came with, or start without it"
        )
    value_type = float if sort == "p99" else int
    types = (int, str, int, int, int, value_type, *grouping.key_types)
    if tuple(type(item) for item in items) != types or not all(_fits_database(item) for item in items):
        raise broken
    _, _, since_s, until_s, resolution_s, value, *key = items
    resolution = next((found for found in RESOLUTIONS if found.seconds == resolution_s), None)
    if resolution is None or not 0 <= since_s < until_s <= _LAST_SECOND_S:
        raise broken
    return Cursor(Window(since_s, until_s, resolution), value, tuple(key))


def _fits_database(item: object) -> bool:
    if isinstance(item, int):
        return item in _INT64
    if isinstance(item, str):
        # PostgreSQL takes no NUL in a text, no driver a lone surrogate.
        return "\x00" not in item and not any("\ud800" <= character <= "\udfff" for character in item)
    # Infinity and NaN are not JSON, but Python's parser takes them.
    return isinstance(item, float) and isfinite(item)
