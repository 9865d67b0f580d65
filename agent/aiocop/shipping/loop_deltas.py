"""Adding up what loops did: windows that wait, and loops that are too many to be kept apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiocop_wire import LoopDelta, add_sparse, to_sparse
from aiocop_wire.histogram import BIN_COUNT
from aiocop_wire.limits import MAX_LOOPS

_OTHERS: Final = 0


def merge_loops(deltas: Iterable[LoopDelta]) -> tuple[LoopDelta, ...]:
    """One delta per loop, the oldest loops first; what is beyond the limit of a report as one of number 0."""
    merged: dict[int, LoopDelta] = {}
    for delta in sorted(deltas):
        number = delta.number
        if number not in merged and number != _OTHERS and len(merged) >= MAX_LOOPS - 1:
            number = _OTHERS
        known = merged.get(number)
        merged[number] = delta._replace(number=number) if known is None else _sum(known, delta)
    others = merged.get(_OTHERS)
    if others is not None:
        merged[_OTHERS] = others._replace(thread_name="", loop="")
    return tuple(merged.values())


def _sum(one: LoopDelta, other: LoopDelta) -> LoopDelta:
    bins = [0] * BIN_COUNT
    add_sparse(bins, one.lag_bins)
    add_sparse(bins, other.lag_bins)
    return LoopDelta(
        number=one.number,
        thread_name=other.thread_name,
        loop=other.loop,
        observed_us=one.observed_us + other.observed_us,
        blocked_us=one.blocked_us + other.blocked_us,
        starved_us=one.starved_us + other.starved_us,
        slow_slices=one.slow_slices + other.slow_slices,
        waiting=one.waiting + other.waiting,
        waiting_max=max(one.waiting_max, other.waiting_max),
        lag_us=one.lag_us + other.lag_us,
        lag_max_us=max(one.lag_max_us, other.lag_max_us),
        lag_bins=tuple(to_sparse(bins)),
    )
