"""What one row of `GET /hotspots` stands for: the columns whose values it shares, and the order rows come in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement

from aiocop_collector.answers.words import GroupBy
from aiocop_collector.notation import place
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import hotspots, releases, services, sites

Sort = Literal["blocked_time", "count", "slow_count", "max", "p99", "last_seen"]
Order = Literal["desc", "asc"]

_JOINS: Final = {
    "hotspots": "JOIN hotspots ON hotspots.id = sites.hotspot_id",
    "services": "JOIN services ON services.id = sites.service_id",
    "releases": "JOIN releases ON releases.id = release_id",
}

Key = tuple[Any, ...]
"""The values of a row's key columns: integers and texts."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """One value of `group_by`."""

    name: GroupBy
    columns: tuple[ColumnElement[Any], ...]
    """Rows are told apart by these columns of sites, hotspots, services or releases."""
    key_types: tuple[type, ...]
    """Python type of each column's values: what a cursor may hold."""

    @property
    def by_release(self) -> bool:
        return self.name == "release"

    @property
    def by_service(self) -> bool:
        return self.name == "service"

    @property
    def key_text(self) -> str:
        """Its columns as SQL text."""
        return ", ".join(f"{column.table.name}.{column.name}" for column in self.columns)

    @property
    def joins(self) -> str:
        """SQL text: what its columns are read from, besides `sites`; releases by a column `release_id`."""
        tables = {column.table.name for column in self.columns}
        return " ".join(join for name, join in _JOINS.items() if name in tables)

    def text(self, key: Key) -> str:
        """The key as the API shows it."""
        if self.name in ("entry_point", "line"):
            return place(*key)
        return to_hex(key[0]) if self.name in ("fingerprint", "call_site") else str(key[0])


GROUPINGS: Final[Mapping[str, Grouping]] = {
    grouping.name: grouping
    for grouping in (
        Grouping("call_site", (hotspots.c.id,), (int,)),
        Grouping("entry_point", (sites.c.entry_path, sites.c.entry_line, sites.c.entry_function), (str, int, str)),
        Grouping("operation", (sites.c.operation,), (str,)),
        Grouping("fingerprint", (sites.c.fingerprint,), (int,)),
        Grouping("line", (hotspots.c.path, sites.c.line, hotspots.c.function), (str, int, str)),
        Grouping("service", (services.c.name,), (str,)),
        Grouping("release", (releases.c.name,), (str,)),
    )
}
