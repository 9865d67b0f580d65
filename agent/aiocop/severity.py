"""How bad an operation on a loop is: weights per operation, their sum per slice, and the level that sum means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiocop.event_types import BlockingEventInfo, IoSeverityLevel

WEIGHT_HEAVY: Final = 50
"""Network, name look-up, subprocesses, sleeping, locks: may take seconds."""
WEIGHT_MODERATE: Final = 10
"""Files and databases: usually milliseconds, sometimes much more."""
WEIGHT_LIGHT: Final = 1
"""One look at the file system."""
WEIGHT_TRIVIAL: Final = 0
"""Answered without leaving memory in all but odd cases."""

WEIGHTS: Final = (WEIGHT_TRIVIAL, WEIGHT_LIGHT, WEIGHT_MODERATE, WEIGHT_HEAVY)

THRESHOLD_HIGH: Final = 50
THRESHOLD_MEDIUM: Final = 10
THRESHOLD_LOW: Final = 1


def calculate_io_severity_score(blocking_events: Iterable[BlockingEventInfo] | None) -> int:
    """The sum of the weights of some blocking events; one without a weight counts as moderate."""
    score = 0
    for event in blocking_events or ():
        weight = event.get("severity")
        score += WEIGHT_MODERATE if weight is None else weight
    return score


def get_severity_level_from_score(score: int) -> IoSeverityLevel:
    """`high` from 50 on, `medium` from 10 on, else `low`."""
    if score >= THRESHOLD_HIGH:
        return "high"
    if score >= THRESHOLD_MEDIUM:
        return "medium"
    return "low"
