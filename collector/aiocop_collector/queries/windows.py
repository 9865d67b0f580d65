"""The stretch of time a question is about: parsed, given a resolution, widened to whole buckets.

A window shorter than a day reads minute buckets, one shorter than two weeks hour buckets, a longer one day buckets: no
question reads more than about 1,500 buckets unless it spans years. Fine buckets are not kept for long (retention.py,
pruning.py), so a window that begins before them reads coarser ones, however short it is. What was asked is always
inside what is answered, but for days that are deleted; the answer says what it covers.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from aiocop_collector.queries.errors import BadParameterError
from aiocop_collector.store.horizons import Horizons
from aiocop_collector.store.retention import KEEP_HOURS, KEEP_MINUTES
from aiocop_collector.store.schema import RESOLUTIONS, Resolution

_DAY_S: Final = 86_400
_DEFAULT_SPAN_S: Final = _DAY_S
_MAX_AHEAD_S: Final = 366 * _DAY_S
_MAX_DEADLINE_S: Final = 3653 * _DAY_S
_MINUTE, _HOUR, _DAY = RESOLUTIONS
_HOURS_FROM_S: Final = _DAY_S
_DAYS_FROM_S: Final = 14 * _DAY_S

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S, "w": 7 * _DAY_S}
_AGE: Final = re.compile(r"([0-9]{1,12})([smhdw])")
# RFC 3339, section 5.6. The zone is required: a time without one means something else on every host.
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EXPECTED: Final = "expected an age such as 15m, 24h or 7d, or an RFC 3339 time such as 2026-01-31T12:00:00Z"


@dataclass(frozen=True, slots=True)
class Window:
    """[since_s, until_s) in Unix seconds, both on edges of the resolution's buckets."""

    since_s: int
    until_s: int
    resolution: Resolution

    @property
    def bucket_starts_s(self) -> range:
        """The Unix second each bucket of the window starts at."""
        return range(self.since_s, self.until_s, self.resolution.seconds)

    @property
    def day_starts_s(self) -> range:
        """The Unix second each day (UTC) that overlaps the window starts at."""
        return range(self.since_s - self.since_s % _DAY_S, self.until_s, _DAY_S)


def parse_window(since: str | None, until: str | None, now_s: float, horizons: Horizons) -> Window:
    """The window that contains what was asked for, on bucket edges. `horizons` are the store's.

    Raises BadParameterError naming `since` or `until`.
    """
    until_s = now_s if until is None else _parse_time("until", until, now_s)
    # An `until` of the past without a `since` asks for the day that ended then.
    since_s = max(0.0, until_s - _DEFAULT_SPAN_S) if since is None else _parse_time("since", since, now_s)
    if since_s >= until_s:
        raise BadParameterError("since", f"{since} is not before until ({until or 'now'}); the window would be empty")
    return widen(since_s, until_s, now_s, horizons)


def widen(since_s: float, until_s: float, now_s: float, horizons: Horizons) -> Window:
    """The window of whole buckets that contains [since_s, until_s): the finest for its length that are still kept."""
    span_s = until_s - since_s

    def kept(resolution: Resolution, keep: timedelta) -> bool:
        first_s = since_s - since_s % resolution.seconds
        return now_s - since_s <= keep.total_seconds() and first_s >= horizons.get(resolution.seconds, 0)

    if span_s < _HOURS_FROM_S and kept(_MINUTE, KEEP_MINUTES):
        resolution = _MINUTE
    elif span_s < _DAYS_FROM_S and kept(_HOUR, KEEP_HOURS):
        resolution = _HOUR
    else:
        resolution = _DAY
    bucket_s = resolution.seconds
    first_s = int(since_s // bucket_s) * bucket_s
    last_s = int(-(-until_s // bucket_s)) * bucket_s
    horizon_s = horizons.get(bucket_s, 0)
    if first_s < horizon_s < last_s:
        first_s = horizon_s  # days: nothing coarser tells of those before
    return Window(first_s, max(last_s, first_s + bucket_s), resolution)


def is_interval(text: str) -> bool:
    """Whether it is `FROM/UNTIL`, each an age or a time; a release may have a slash in its name too."""
    since, slash, until = text.partition("/")
    return bool(slash) and all(_AGE.fullmatch(part) or _TIMESTAMP.fullmatch(part) for part in (since, until))


def parse_interval(parameter: str, text: str, now_s: float, horizons: Horizons) -> Window:
    """The window of `FROM/UNTIL`. Raises BadParameterError naming `parameter`."""
    since, _, until = text.partition("/")
    since_s, until_s = (_parse_time(parameter, part, now_s) for part in (since, until))
    if since_s >= until_s:
        raise BadParameterError(parameter, f"{since} is not before {until}; the window would be empty")
    return widen(since_s, until_s, now_s, horizons)


def parse_instant(parameter: str, text: str, now_s: float) -> int:
    """Unix milliseconds of an age or an RFC 3339 time. Raises BadParameterError naming `parameter`."""
    return int(_parse_time(parameter, text, now_s) * 1000)


def parse_deadline(parameter: str, text: str, now_s: float) -> int:
    """Unix milliseconds of a time ahead: `7d` is a week from now. Raises BadParameterError naming `parameter`."""
    at_s = _seconds(parameter, text, now_s)
    if _AGE.fullmatch(text) is not None:
        at_s = 2 * now_s - at_s
    if not now_s < at_s <= now_s + _MAX_DEADLINE_S:
        raise BadParameterError(parameter, f"{text} is not a time in the next ten years")
    return int(at_s * 1000)


def _parse_time(parameter: str, text: str, now_s: float) -> float:
    at_s = _seconds(parameter, text, now_s)
    if at_s < 0:
        raise BadParameterError(parameter, f"{text} is before 1970; there is nothing that old")
    if at_s > now_s + _MAX_AHEAD_S:
        raise BadParameterError(parameter, f"{text} is more than a year from now; there is nothing there")
    return at_s


def _seconds(parameter: str, text: str, now_s: float) -> float:
    age = _AGE.fullmatch(text)
    if age is not None:
        return now_s - int(age[1]) * _UNIT_S[age[2]]
    timestamp = _TIMESTAMP.fullmatch(text)
    if timestamp is None:
        hint = "; a + in a URL is written %2B" if " " in text[11:] else ""
        raise BadParameterError(parameter, f"{text!r:.60} is not a time: {_EXPECTED}{hint}")
    day, clock, fraction, zone = timestamp.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        # Python 3.10 takes three or six digits of a fraction only, and no Z.
        at = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}{zone}")
        return at.timestamp()
    except (ValueError, OverflowError) as error:
        raise BadParameterError(parameter, f"{text} is not a time that exists ({error}): {_EXPECTED}") from error
