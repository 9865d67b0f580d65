"""`GET /diff`: what changed between two releases of a service, or between two stretches of time.

Rates make the sides comparable. Observation is process time: how long the agents of a side ran within its window.
Slices are what they ran; agents report totals of their lives, so slices are known only where no agent's life crosses
the window's edge.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.diff import (
    DiffAnswer,
    DiffCounts,
    DiffHotspot,
    DiffSide,
    DiffThresholds,
    Observation,
    Rates,
    Verdict,
)
from aiocop_collector.answers.words import Status
from aiocop_collector.notation import place
from aiocop_collector.queries.errors import BadParameterError
from aiocop_collector.queries.fact_memory import SITES_IN_FULL
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import GROUPINGS
from aiocop_collector.queries.hotspots import window_answer
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.scope import open_scope
from aiocop_collector.queries.windows import Window, is_interval, parse_interval, parse_window
from aiocop_collector.store.horizons import Horizons, load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import agents, hotspots, releases, services, sites
from aiocop_collector.store.totals import counters_of

Per = Literal["hour", "slice"]
Change = Literal["new", "gone", "worse", "better", "same"]

_HOUR_MS: Final = 3_600_000
_MINUTE_MS: Final = 60_000
_DEFAULT_RELEASE_WINDOW: Final = "30d"


@dataclass(frozen=True, slots=True)
class DiffQuestion:
    """The parameters of `GET /diff`, as they came."""

    base: str
    head: str
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    per: Per = "hour"
    worse_ratio: float = 1.5
    min_ms_per_hour: float = 100.0
    min_minutes: float = 1.0
    limit: int = 100


@dataclass(slots=True)
class _Observed:
    """One service's processes on one side."""

    processes: int = 0
    observed_ms: int = 0
    slices: int | None = 0


@dataclass(slots=True)
class _Cost:
    """One hotspot's counters on one side, and its costliest line there."""

    count: int = 0
    slow_count: int = 0
    blocked_us: int = 0
    max_us: int = 0
    line: int = 0
    _line_us: int = -1

    def add(self, line: int, count: int, slow_count: int, blocked_us: int, max_us: int) -> None:
        self.count += count
        self.slow_count += slow_count
        self.blocked_us += blocked_us
        self.max_us = max(self.max_us, max_us)
        if blocked_us > self._line_us:
            self.line, self._line_us = line, blocked_us


@dataclass(frozen=True, slots=True)
class _Place:
    """What a hotspot is, whichever side it is on."""

    service_id: int
    service: str
    environment: str
    path: str
    function: str
    status: Status


@dataclass(slots=True)
class _Side:
    """What one side read from the store."""

    release: str | None
    window: Window
    observed: dict[int, _Observed] = field(default_factory=dict)
    costs: dict[int, _Cost] = field(default_factory=dict)
    places: dict[int, _Place] = field(default_factory=dict)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)

    def of(self, service_id: int) -> _Observed:
        return self.observed.get(service_id, _Observed())


async def ask_diff(connection: AsyncConnection, memory: Memory, question: DiffQuestion, now_s: float) -> DiffAnswer:
    """Raises BadParameterError."""
    horizons = await load_horizons(connection)
    base, head = _sides(question, now_s, horizons)
    for name, side in (("base", base), ("head", head)):
        await _read(connection, memory, side, question, now_s, horizons)
        if side.release is not None and not side.observed:
            await _check_release(connection, name, side.release, question)
    return _compare(base, head, question)


def _sides(question: DiffQuestion, now_s: float, horizons: Horizons) -> tuple[_Side, _Side]:
    if is_interval(question.base) != is_interval(question.head):
        raise BadParameterError("head", "base and head must both be releases or both be times like 48h/24h")
    if is_interval(question.base):
        for name, value in (("since", question.since), ("until", question.until)):
            if value is not None:
                raise BadParameterError(name, "base and head say the time already")
        sides = [
            _Side(None, parse_interval(name, text, now_s, horizons))
            for name, text in (("base", question.base), ("head", question.head))
        ]
        return sides[0], sides[1]
    if len(question.service) != 1:
        raise BadParameterError("service", "a release belongs to one service: say which")
    if question.base == question.head:
        raise BadParameterError("head", f"{question.head!r:.60} is the release of base too")
    since = question.since
    if since is None and question.until is None:
        since = _DEFAULT_RELEASE_WINDOW
    window = parse_window(since, question.until, now_s, horizons)
    return _Side(question.base, window), _Side(question.head, window)


async def _check_release(connection: AsyncConnection, side: str, release: str, question: DiffQuestion) -> None:
    known = (
        select(releases.c.name)
        .join(services, services.c.id == releases.c.service_id)
        .where(services.c.name.in_(question.service))
        .order_by(releases.c.first_seen_ms.desc())
    )
    names = list(dict.fromkeys((await connection.execute(known)).scalars()))
    if release not in names:
        latest = ", ".join(name or '""' for name in names[:5]) or "none"
        raise BadParameterError(
            side, f"release {release!r:.60} was never seen in this service; the latest are {latest}"
        )


async def _read(
    connection: AsyncConnection,
    memory: Memory,
    side: _Side,
    question: DiffQuestion,
    now_s: float,
    horizons: Horizons,
) -> None:
    filters = Filters(
        service=question.service,
        environment=question.environment,
        release=() if side.release is None else (side.release,),
    )
    scope = await open_scope(connection, memory, side.window, filters, GROUPINGS["call_site"], now_s, horizons)
    sums, max_us = scope.by_site()
    statement = (
        select(
            sites.c.id.label("site_id"),
            hotspots.c.id,
            hotspots.c.path,
            hotspots.c.function,
            hotspots.c.status,
            sites.c.service_id,
            sites.c.line,
            services.c.name.label("service"),
            services.c.environment,
        )
        .select_from(SITES_IN_FULL)
        .where(*filters.site_conditions())
    )
    for row in await connection.execute(statement):
        packed = sums.get(row.site_id)
        if packed is not None:
            side.costs.setdefault(row.id, _Cost()).add(row.line, *counters_of(packed), max_us[row.site_id])
            side.places[row.id] = _Place(
                row.service_id, row.service, row.environment, row.path, row.function, row.status
            )
    await _observe(connection, side, question)


async def _observe(connection: AsyncConnection, side: _Side, question: DiffQuestion) -> None:
    since_ms, until_ms = side.window.since_s * 1000, side.window.until_s * 1000
    statement = (
        select(agents, services.c.name.label("service"), services.c.environment)
        .select_from(agents.join(services, services.c.id == agents.c.service_id))
        .where(agents.c.last_seen_ms >= since_ms, agents.c.first_seen_ms < until_ms)
    )
    if side.release is not None:
        statement = statement.join(releases, releases.c.id == agents.c.release_id).where(
            releases.c.name == side.release
        )
    if question.service:
        statement = statement.where(services.c.name.in_(question.service))
    if question.environment:
        statement = statement.where(services.c.environment.in_(question.environment))
    for row in await connection.execute(statement):
        observed = side.observed.setdefault(row.service_id, _Observed())
        side.names[row.service_id] = (row.service, row.environment)
        # What it folded while no collector was there counts too; a clock that cannot be right does not.
        started_ms = row.started_at_ms if 0 < row.started_at_ms <= row.first_seen_ms else row.first_seen_ms
        observed.processes += 1
        observed.observed_ms += max(0, min(row.last_seen_ms, until_ms) - max(started_ms, since_ms))
        if started_ms < since_ms or row.last_seen_ms > until_ms:
            observed.slices = None
        elif observed.slices is not None:
            observed.slices += row.slices


def _compare(base: _Side, head: _Side, question: DiffQuestion) -> DiffAnswer:
    rows: dict[Change, list[tuple[float, DiffHotspot]]] = {"new": [], "gone": [], "worse": [], "better": []}
    same = unknown = 0
    for hotspot_id, where in {**base.places, **head.places}.items():
        row = _row(hotspot_id, where, base, head, question.per)
        rates_ms = _comparable(row, base, head, where.service_id, question)
        if rates_ms is None:
            unknown += 1
            continue
        change = _change(rates_ms, hotspot_id in base.costs, hotspot_id in head.costs, question)
        if change == "same":
            same += 1
        else:
            difference_ms = (row.head.blocked_ms_per_hour or 0.0) - (row.base.blocked_ms_per_hour or 0.0)
            rows[change].append((abs(difference_ms), row))
    listed: dict[str, list[DiffHotspot]] = {}
    for change, found in rows.items():
        found.sort(key=lambda item: (-item[0], item[1].id))
        listed[change] = [row for _, row in found[: question.limit]]
    counts = DiffCounts(**{change: len(found) for change, found in rows.items()}, same=same, unknown=unknown)
    return DiffAnswer(
        verdict=_verdict(base, head, counts, question),
        counts=counts,
        by="time" if base.release is None else "release",
        per=question.per,
        thresholds=DiffThresholds(
            worse_ratio=question.worse_ratio,
            min_ms_per_hour=question.min_ms_per_hour,
            min_minutes=question.min_minutes,
        ),
        base=_side_answer(base),
        head=_side_answer(head),
        **listed,
    )


def _row(hotspot_id: int, where: _Place, base: _Side, head: _Side, per: Per) -> DiffHotspot:
    costs = head.costs.get(hotspot_id) or base.costs[hotspot_id]
    before = _rates(base, hotspot_id, where.service_id)
    after = _rates(head, hotspot_id, where.service_id)
    was, is_now = _rate(before, per), _rate(after, per)
    return DiffHotspot(
        id=to_hex(hotspot_id),
        service=where.service,
        environment=where.environment,
        call_site=place(where.path, costs.line, where.function),
        status=where.status,
        ratio=round(is_now / was, 3) if was and is_now is not None else None,
        base=before,
        head=after,
    )


def _rate(rates: Rates, per: Per) -> float | None:
    return rates.blocked_ms_per_hour if per == "hour" else rates.blocked_ms_per_million_slices


def _rates(side: _Side, hotspot_id: int, service_id: int) -> Rates:
    cost, observed = side.costs.get(hotspot_id, _Cost()), side.of(service_id)
    hours = observed.observed_ms / _HOUR_MS
    blocked_ms = milliseconds(cost.blocked_us)
    return Rates(
        count=cost.count,
        slow_count=cost.slow_count,
        blocked_ms=blocked_ms,
        max_ms=milliseconds(cost.max_us),
        count_per_hour=round(cost.count / hours, 3) if hours else None,
        blocked_ms_per_hour=round(blocked_ms / hours, 3) if hours else None,
        blocked_ms_per_million_slices=round(blocked_ms * 1e6 / observed.slices, 3) if observed.slices else None,
    )


def _comparable(
    row: DiffHotspot, base: _Side, head: _Side, service_id: int, question: DiffQuestion
) -> tuple[float, float, float] | None:
    """(base's rate, head's rate, the difference per hour), or None where a side was not observed for long enough."""
    if not all(_is_observed(side.of(service_id), question) for side in (base, head)):
        return None
    was, is_now = _rate(row.base, question.per), _rate(row.head, question.per)
    if was is None or is_now is None:
        return None
    return was, is_now, (row.head.blocked_ms_per_hour or 0.0) - (row.base.blocked_ms_per_hour or 0.0)


def _is_observed(observed: _Observed, question: DiffQuestion) -> bool:
    return observed.observed_ms >= max(1.0, question.min_minutes * _MINUTE_MS)


def _change(rates: tuple[float, float, float], in_base: bool, in_head: bool, question: DiffQuestion) -> Change:  # noqa: FBT001 two sides, always in this order
    was, is_now, difference_ms = rates
    if abs(difference_ms) < question.min_ms_per_hour:
        return "same"
    if not in_base:
        return "new"
    if not in_head:
        return "gone"
    if is_now > was * question.worse_ratio:
        return "worse"
    if was > is_now * question.worse_ratio:
        return "better"
    return "same"


def _verdict(base: _Side, head: _Side, counts: DiffCounts, question: DiffQuestion) -> Verdict:
    if counts.new or counts.worse:
        return "worse"
    both = base.observed.keys() & head.observed.keys()
    seen = any(all(_is_observed(side.of(one), question) for side in (base, head)) for one in both)
    if counts.unknown or not seen:
        return "unknown"
    return "better" if counts.gone or counts.better else "same"


def _side_answer(side: _Side) -> DiffSide:
    return DiffSide(
        release=side.release,
        window=window_answer(side.window),
        observed=[
            Observation(
                service=service,
                environment=environment,
                processes=side.of(service_id).processes,
                process_hours=round(side.of(service_id).observed_ms / _HOUR_MS, 4),
                slices=side.of(service_id).slices,
            )
            for service_id, (service, environment) in sorted(side.names.items(), key=lambda item: item[1])
        ],
    )
