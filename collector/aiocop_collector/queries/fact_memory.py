"""What sites are, and which of them match, kept between questions: reading that of a fleet takes longer than adding up.

Facts are what definitions, triage and rules say; when something was seen is none, as every commit changes it. Triggers
in the database put a new number into `facts_changed` in the transaction that changes a fact, whoever does it (migration
0013). What is remembered goes by the numbers that a question's own transaction sees: so it is never out of date, and a
collector needs to tell no other.

Written and read on the event loop's thread only. What it gives out is shared: nobody may change it.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Set
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.cells import Cells
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.store.buckets import among, site_list
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.schema import hotspots, services, sites

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import FromClause

_FEW_SITES: Final = 300
"""Up to here sites are looked up; where more are wanted, all are read, to be remembered."""

_MOST_LOOKED_UP: Final = 5_000
"""Sites, and releases, remembered of those that were looked up."""

_MOST_SITES: Final = 50_000
"""Remembered with their facts: some 300 bytes each. Of a larger store only those wanted are read, each time."""

_MOST_MATCHES: Final = 50_000
"""Sites remembered with their group, of all questions together: up to 200 bytes each."""

_FEW_IN_A_GROUP: Final = 8
"""Sites of a group, of all groups together, up to which a group is what its sites are …"""

_FEW_TO_SUM: Final = 500
"""… as it is where no more sites match: only larger groups are summarised."""

_MATCHES_OF_NONE: Final = 20
"""What remembering that counts for besides."""

FactsVersion = frozenset[int]
"""Stands for one state of all facts."""


class SiteFacts(NamedTuple):
    """What a site is."""

    site_id: int
    operation: str
    reason: str
    weight: int
    line: int
    entry_path: str
    entry_line: int
    entry_function: str
    advice: str
    hotspot_id: int
    path: str
    function: str
    status: str
    service: str
    environment: str


FACT_COLUMNS: Final = (
    sites.c.id,
    sites.c.operation,
    sites.c.reason,
    sites.c.weight,
    sites.c.line,
    sites.c.entry_path,
    sites.c.entry_line,
    sites.c.entry_function,
    sites.c.advice,
    hotspots.c.id,
    hotspots.c.path,
    hotspots.c.function,
    hotspots.c.status,
    services.c.name,
    services.c.environment,
)
"""`SiteFacts`, in its order. A column of `sites` or `hotspots` that is added here must be named by a trigger too."""

SITES_IN_FULL: Final = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id).join(
    services, services.c.id == sites.c.service_id
)
"""Where `FACT_COLUMNS` are read from."""

_READ_FACTS: Final = str(select(*FACT_COLUMNS).select_from(SITES_IN_FULL))
"""The same for `fetch`."""


class FactMemory:
    """One per collector."""

    def __init__(self, *, most_sites: int = _MOST_SITES, most_matches: int = _MOST_MATCHES) -> None:
        self._most_sites, self._most_matches = most_sites, most_matches
        self._version: FactsVersion | None = None
        self._facts: Mapping[int, SiteFacts] | None = None
        self._some_facts: dict[int, SiteFacts] = {}
        """Of those that were looked up, while not all are remembered."""
        self._release_names: dict[int, str] = {}
        self._cells: OrderedDict[tuple[Filters, str], Cells] = OrderedDict()
        self._matches = 0

    async def version(self, connection: AsyncConnection) -> FactsVersion:
        """Of the facts as this connection's transaction sees them."""
        return frozenset(change for (change,) in await fetch(connection, "SELECT change FROM facts_changed"))

    async def cells(
        self, connection: AsyncConnection, version: FactsVersion, filters: Filters, grouping: Grouping
    ) -> Cells:
        """The sites that match, by cell; grouping by release, without releases. Not to be changed."""
        question = (filters, grouping.name)
        found = self._cells.get(question) if version == self._version else None
        if found is not None:
            self._cells.move_to_end(question)
            return found
        found = await _read_cells(connection, filters, grouping)
        self._turn_to(version)
        if question not in self._cells:
            self._matches += len(found.cell_of) + _MATCHES_OF_NONE
        self._cells[question] = found
        while self._matches > self._most_matches:
            _, forgotten = self._cells.popitem(last=False)
            self._matches -= len(forgotten.cell_of) + _MATCHES_OF_NONE
        return found

    async def facts(
        self, connection: AsyncConnection, version: FactsVersion, site_ids: Collection[int]
    ) -> Mapping[int, SiteFacts]:
        """Of these sites at least. Not to be changed."""
        if self._facts is not None and version == self._version:
            return self._facts
        if len(site_ids) <= _FEW_SITES:
            return await self._look_up(connection, version, site_ids)
        found = await _read_facts(connection, limit=self._most_sites + 1)
        if len(found) > self._most_sites:
            return await _read_facts(connection, site_ids)
        self._turn_to(version)
        self._facts, self._some_facts = found, {}
        return found

    async def _look_up(
        self, connection: AsyncConnection, version: FactsVersion, site_ids: Collection[int]
    ) -> Mapping[int, SiteFacts]:
        self._turn_to(version)
        known = self._some_facts
        if len(known) > _MOST_LOOKED_UP:
            known = self._some_facts = {}  # others may still look at the one before
        missing = [site_id for site_id in site_ids if site_id not in known]
        if missing:
            known.update(await _read_facts(connection, missing))
        return known

    async def release_names(self, connection: AsyncConnection, release_ids: Set[int]) -> Mapping[int, str]:
        """Of these releases at least; those that are gone are missing. A release has its name for life."""
        known = self._release_names
        if len(known) > _MOST_LOOKED_UP:
            known = self._release_names = {}
        if not release_ids <= known.keys():
            statement = f"SELECT id, name FROM releases WHERE {among(connection, 'id')}"  # noqa: S608 see buckets.py
            known.update(await fetch(connection, statement, (site_list(connection, release_ids),)))
        return known

    async def every_site(self, connection: AsyncConnection, version: FactsVersion) -> Set[int]:
        """The sites there are."""
        if self._facts is not None and version == self._version:
            return self._facts.keys()
        return {site_id for (site_id,) in await fetch(connection, "SELECT id FROM sites")}

    def _turn_to(self, version: FactsVersion) -> None:
        """Forget what was true at another version: as a rule, at an earlier one."""
        if version != self._version:
            self._version, self._facts, self._some_facts, self._matches = version, None, {}, 0
            self._cells.clear()


async def _read_cells(connection: AsyncConnection, filters: Filters, grouping: Grouping) -> Cells:
    source: FromClause = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id)
    if grouping.by_service:
        source = source.join(services, services.c.id == sites.c.service_id)
    columns = () if grouping.by_release else grouping.columns
    statement = select(sites.c.id, sites.c.operation, *columns).select_from(source).where(*filters.site_conditions())
    numbers: dict[Key, int] = {}
    groups: dict[int, int] = {}
    operation_of: dict[int, str] = {}
    for site_id, operation, *values in (await connection.execute(statement)).all():
        groups[site_id] = numbers.setdefault(tuple(values), len(numbers))
        operation_of[site_id] = operation
    if not grouping.by_release and len(groups) < max(_FEW_IN_A_GROUP * len(numbers), _FEW_TO_SUM):
        return Cells(list(numbers), groups)
    cells: dict[tuple[int, str], int] = {}
    cell_of = {
        site_id: cells.setdefault((group, operation_of[site_id]), len(cells)) for site_id, group in groups.items()
    }
    return Cells(list(numbers), cell_of, [group for group, _ in cells], [operation for _, operation in cells])


async def _read_facts(
    connection: AsyncConnection, site_ids: Collection[int] | None = None, *, limit: int = 0
) -> Mapping[int, SiteFacts]:
    """Of these sites, or of the first so many."""
    if site_ids is None:
        rows = await fetch(connection, f"{_READ_FACTS} LIMIT {limit:d}")
    else:
        rows = await fetch(
            connection, f"{_READ_FACTS} WHERE {among(connection, 'sites.id')}", (site_list(connection, site_ids),)
        )
    same: dict[str, str] = {}
    """Most texts are those of many sites."""
    found: dict[int, SiteFacts] = {}
    for row in rows:
        found[row[0]] = SiteFacts._make(same.setdefault(value, value) if type(value) is str else value for value in row)
    return found
