"""Which activity a question is about: every filter repeatable, any value of one, all of them together."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ARRAY, BigInteger, ColumnElement, String, any_, cast, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.buckets import site_list
from aiocop_collector.store.schema import hotspots, releases, services, sites

IGNORED: Final = "ignored"


@dataclass(frozen=True, slots=True)
class Filters:
    """Values as the API takes them; an empty tuple filters nothing, except that `status` then leaves out ignored."""

    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    q: tuple[str, ...] = ()
    """Texts, of which one must be part of the call site, the entry point or the operation; case does not matter."""
    hotspot_id: int | None = None
    """Only this hotspot: set by questions about one, not by a parameter."""

    @property
    def narrows_sites(self) -> bool:
        """Whether few sites may be left, so that looking them up first is cheaper than reading all roll-ups."""
        return self.hotspot_id is not None or bool(
            self.service or self.environment or self.operation or self.reason or self.status or self.q
        )

    def site_conditions(self) -> list[ColumnElement[bool]]:
        """What must hold for a row of `sites` joined with its `hotspots` row."""
        conditions: list[ColumnElement[bool]] = []
        if self.hotspot_id is not None:
            conditions.append(hotspots.c.id == self.hotspot_id)
        if self.service or self.environment:
            wanted = select(services.c.id)
            if self.service:
                wanted = wanted.where(services.c.name.in_(self.service))
            if self.environment:
                wanted = wanted.where(services.c.environment.in_(self.environment))
            conditions.append(sites.c.service_id.in_(wanted))
        if self.operation:
            conditions.append(sites.c.operation.in_(self.operation))
        if self.reason:
            conditions.append(sites.c.reason.in_(self.reason))
        conditions.append(hotspots.c.status.in_(self.status) if self.status else hotspots.c.status != IGNORED)
        if self.q:
            conditions.append(or_(*(_contains(text) for text in self.q)))
        return conditions

    def release_condition(self, release_id: ColumnElement[int]) -> ColumnElement[bool] | None:
        """What must hold for a column of release ids; None when every release counts."""
        return release_named(release_id, self.release) if self.release else None


def release_named(release_id: ColumnElement[int], names: Iterable[str]) -> ColumnElement[bool]:
    """That the release with this id has one of these names, in whatever service."""
    return release_id.in_(select(releases.c.id).where(releases.c.name.in_(tuple(names))))


def is_among(connection: AsyncConnection, column: ColumnElement[int], numbers: Collection[int]) -> ColumnElement[bool]:
    """That the column holds one of them: one parameter however many there are."""
    listed = site_list(connection, numbers)
    if connection.dialect.name == "postgresql":
        return column == any_(literal(listed, ARRAY(BigInteger)))
    items = func.json_each(literal(listed)).table_valued("value", name="items")
    return column.in_(select(items.c.value))


def _contains(text: str) -> ColumnElement[bool]:
    colon = literal(":")
    call_site = hotspots.c.path + colon + cast(sites.c.line, String) + colon + hotspots.c.function
    entry_point = sites.c.entry_path + colon + cast(sites.c.entry_line, String) + colon + sites.c.entry_function
    return or_(*(column.icontains(text, autoescape=True) for column in (call_site, entry_point, sites.c.operation)))
