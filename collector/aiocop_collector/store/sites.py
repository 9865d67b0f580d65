"""Sites and their hotspots: what definitions say, what the database knows, and what stands in for the undefined."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import ids
from aiocop_collector.store.agents import chunks, clean
from aiocop_collector.store.fold import Sighting
from aiocop_collector.store.schema import sites
from aiocop_wire import Frame, SiteDefinition

UNKNOWN: Final = "<unknown>"
"""Path of the call site that stands for sites whose definition has not arrived (a lost datagram)."""

_MAX_KNOWN: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site that is in the database. `definition` is None where this process has not seen one."""

    hotspot_id: int
    definition: SiteDefinition | None = None


class SiteMemory:
    """Sites known to be committed, the most recently used ones; spares a query and a write for each report.

    Changed only after a commit. Sites are never deleted from the database, so what it holds stays true.
    """

    def __init__(self, *, most: int = _MAX_KNOWN) -> None:
        self._most = most
        self._sites: OrderedDict[int, KnownSite] = OrderedDict()

    def get(self, site_id: int) -> KnownSite | None:
        known = self._sites.get(site_id)
        if known is not None:
            self._sites.move_to_end(site_id)
        return known

    def learn(self, learned: Mapping[int, KnownSite]) -> None:
        self._sites.update(learned)
        while len(self._sites) > self._most:
            self._sites.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Defined:
    """A definition that arrived, dated by the report it came with."""

    service_id: int
    definition: SiteDefinition
    sighting: Sighting

    @property
    def call_site(self) -> Frame:
        return self.definition.frames[self.definition.call_site]

    def hotspot_id(self) -> int:
        return ids.hotspot_id(self.service_id, self.call_site.path, self.call_site.function)


@dataclass(frozen=True, slots=True)
class StoredSite:
    """A site as read from the database."""

    hotspot_id: int
    sighting: Sighting


@dataclass(frozen=True, slots=True)
class Moved:
    """A site whose definition now says another hotspot than the one it was stored under."""

    site_id: int
    old_hotspot_id: int
    new_hotspot_id: int


async def load_sites(connection: AsyncConnection, site_ids: Iterable[int]) -> dict[int, StoredSite]:
    """Those of the sites that are in the database."""
    found: dict[int, StoredSite] = {}
    for part in chunks(sorted(site_ids)):
        query = select(
            sites.c.id,
            sites.c.hotspot_id,
            sites.c.first_seen_ms,
            sites.c.last_seen_ms,
            sites.c.first_release_id,
            sites.c.last_release_id,
        ).where(sites.c.id.in_(part))
        for site_id, hotspot_id, *seen in await connection.execute(query):
            found[site_id] = StoredSite(hotspot_id, Sighting(*seen))
    return found


def defined_row(site_id: int, defined: Defined, sighting: Sighting) -> tuple[Any, ...]:
    """A row of `sites`, in the order of its columns."""
    definition, call_site, entry = defined.definition, defined.call_site, defined.definition.frames[0]
    return (
        site_id,
        defined.hotspot_id(),
        defined.service_id,
        clean(definition.operation),
        ids.to_signed(definition.fingerprint),
        definition.cause,
        definition.reason,
        definition.weight,
        call_site.line,
        clean(entry.path),
        entry.line,
        clean(entry.function),
        frames_json(definition.frames),
        clean(definition.advice),
        *seen(sighting),
    )


def unknown_row(site_id: int, service_id: int, sighting: Sighting) -> tuple[Any, ...]:
    """A row of `sites` that holds counts until the definition arrives."""
    hotspot_id = ids.hotspot_id(service_id, UNKNOWN, "")
    return (
        site_id,
        hotspot_id,
        service_id,
        UNKNOWN,
        0,
        "io",
        "io_blocking",
        0,
        0,
        UNKNOWN,
        0,
        "",
        "[]",
        "",
        *seen(sighting),
    )


def frames_json(frames: Iterable[Frame]) -> str:
    return json.dumps([(frame.path, frame.line, frame.function, frame.kind) for frame in frames], separators=(",", ":"))


def seen(sighting: Sighting) -> tuple[int, int, int, int]:
    """The last four columns of `sites` and `hotspots`."""
    return (sighting.first_seen_ms, sighting.last_seen_ms, sighting.first_release_id, sighting.last_release_id)
