"""What `GET /diff` answers. Units and forms are those of answers.py."""

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from aiocop_collector.answers.base import Answer
from aiocop_collector.answers.models import Totals, WindowAnswer
from aiocop_collector.answers.words import Status

Verdict = Literal["worse", "better", "same", "unknown"]

_EXAMPLE_WINDOW: Final[dict[str, Any]] = {
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-02-01T00:00:00Z",
    "resolution_s": 86_400,
}
_EXAMPLE_RATES: Final[dict[str, Any]] = {
    "count": 1200,
    "slow_count": 40,
    "blocked_ms": 4000.0,
    "max_ms": 310.0,
    "count_per_hour": 50.0,
    "blocked_ms_per_hour": 166.667,
    "blocked_ms_per_million_slices": 800.0,
}
EXAMPLE_DIFF: Final[dict[str, Any]] = {
    "verdict": "worse",
    "counts": {"new": 0, "gone": 0, "worse": 1, "better": 0, "same": 16, "unknown": 0},
    "by": "release",
    "per": "hour",
    "thresholds": {"worse_ratio": 1.5, "min_ms_per_hour": 100.0, "min_minutes": 1.0},
    "base": {
        "release": "1.4.0",
        "window": _EXAMPLE_WINDOW,
        "observed": [
            {"service": "shop", "environment": "prod", "processes": 2, "process_hours": 24.0, "slices": 5_000_000}
        ],
    },
    "head": {
        "release": "1.5.2",
        "window": _EXAMPLE_WINDOW,
        "observed": [
            {"service": "shop", "environment": "prod", "processes": 2, "process_hours": 12.0, "slices": 2_500_000}
        ],
    },
    "new": [],
    "gone": [],
    "worse": [
        {
            "id": "9f2c61b0a4d7e835",
            "service": "shop",
            "environment": "prod",
            "call_site": "shop/orders.py:42:create_order",
            "status": "open",
            "ratio": 3.0,
            "base": _EXAMPLE_RATES,
            "head": {
                **_EXAMPLE_RATES,
                "blocked_ms": 6000.0,
                "count_per_hour": 100.0,
                "blocked_ms_per_hour": 500.0,
                "blocked_ms_per_million_slices": 2400.0,
            },
        }
    ],
    "better": [],
}


class Rates(Totals):
    """What a hotspot cost on one side, and per unit of what was observed there."""

    count_per_hour: float | None = Field(description="Per hour of a process; null where none was observed.")
    blocked_ms_per_hour: float | None = Field(description="Per hour of a process; null where none was observed.")
    blocked_ms_per_million_slices: float | None = Field(description="null where slices are not known.")


class DiffHotspot(Answer):
    """One call site on both sides."""

    id: str
    service: str
    environment: str
    call_site: str
    status: Status
    ratio: float | None = Field(description="Rate of head over rate of base; null where base has none.")
    base: Rates
    head: Rates


class Observation(Answer):
    """How much of a service one side saw."""

    service: str
    environment: str
    processes: int
    process_hours: float = Field(description="Time its processes ran within the window, added up.")
    slices: int | None = Field(description="null where a process ran beyond the window.")


class DiffSide(Answer):
    """One side of the comparison."""

    release: str | None
    window: WindowAnswer
    observed: list[Observation]


class DiffThresholds(Answer):
    """What was taken for a change."""

    worse_ratio: float
    min_ms_per_hour: float
    min_minutes: float


class DiffCounts(Answer):
    """Hotspots of each kind, the unlisted ones too."""

    new: int
    gone: int
    worse: int
    better: int
    same: int
    unknown: int


class DiffAnswer(Answer):
    """`GET /diff`."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_DIFF})

    verdict: Verdict = Field(
        description="worse: something is new or worse; unknown: a side was not observed for long enough; better: "
        "something is gone or better; else same."
    )
    counts: DiffCounts
    by: Literal["release", "time"]
    per: Literal["hour", "slice"]
    thresholds: DiffThresholds
    base: DiffSide
    head: DiffSide
    new: list[DiffHotspot] = Field(description="By the change of blocked time per hour, the largest first; so in all.")
    gone: list[DiffHotspot]
    worse: list[DiffHotspot]
    better: list[DiffHotspot]
