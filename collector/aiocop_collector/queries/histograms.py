"""The percentiles in merged histograms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiocop_wire import percentile_ms, percentiles_ms

_SHOWN: Final = (0.50, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In milliseconds, to the microsecond; None where nothing was recorded."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def percentiles(bins: Sequence[int] | None, max_us: int) -> Percentiles:
    """`max_us` is the longest recorded duration: no percentile lies above it."""
    if bins is None:
        return Percentiles(None, None, None)
    return Percentiles(*map(_rounded, percentiles_ms(bins, _SHOWN, max_ms=max_us / 1000)))


def p99_ms_of(bins: Sequence[int] | None, max_us: int) -> float | None:
    """The last of them alone."""
    return None if bins is None else _rounded(percentile_ms(bins, 0.99, max_ms=max_us / 1000))


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)
