"""The tables: small dimensions with deterministic ids, roll-ups at three resolutions, agents, recent slow events.

Every id is a 64-bit hash of what the row stands for (see ids.py), so several collectors that share one store never need
to agree on one. Times are integers: `_ms` Unix milliseconds, `bucket_s` the Unix second a bucket starts at.

    services ─┬─ releases
              ├─ agents                     one row per instance; its last applied sequence
              └─ hotspots ── sites ─┬─ traces
                       │            ├─ rollups_{minute,hour,day}      per (bucket, site, release): counters
                       │            ├─ histograms_{minute,hour,day}   the same key: one integer column per bin
                       │            └─ presence                       which agents saw the site on which day
                       ├─ slow_events       the most recent ones, whole
                       ├─ stalls            freezes while they go on, and how they went out
                       ├─ decisions         what people decided, beyond the status
                       ├─ history           who changed what, and when
                       └─ captures          slices that were asked for in detail, and what came

    control_settings                 what is wanted of services' and single agents' agents
    control_history                  who changed that, and when
    control_revision                 at most one row: how many changes there were

    loops_{minute,hour,day}          per (bucket, service): how its loops fare, with a histogram of lag
    outbox                           messages for webhooks, and what became of them
    summed_totals                    neighbouring buckets summed once they are over, packed (see spans.py)
    summed                           which of them are there and true
    rollups_span, histograms_span,   the same as the version before kept it; its rows go with their age
    spans
    facts_changed                    other numbers whenever what sites are has changed (see triggers.py)
    presence_changed                 per service, another number whenever somebody was seen at a site of it
    horizons                         per resolution: what starts earlier was deleted
    about                            facts about the store itself

Roll-ups and histograms are apart because most questions need the four counters of many rows and the 86 bins of few. An
empty bin is NULL: one byte in SQLite, one bit in PostgreSQL. Migrations live in migrations/versions and must produce
exactly this; a test compares them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text, event
from sqlalchemy.engine import Connection

from aiocop_collector.store.triggers import fact_triggers, presence_triggers
from aiocop_wire import BIN_COUNT

metadata: Final = MetaData()

services: Final = Table(
    "services",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

releases: Final = Table(
    "releases",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("service_id", BigInteger, nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

agents: Final = Table(
    "agents",
    metadata,
    Column("id", String(32), primary_key=True),  # the instance in hexadecimal
    Column("service_id", BigInteger, nullable=False, index=True),
    Column("release_id", BigInteger, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("host", String, nullable=False),
    Column("python", String, nullable=False),
    Column("loop", String, nullable=False),
    Column("agent_version", String, nullable=False),
    Column("transport", String, nullable=False),  # unix or udp
    Column("started_at_ms", BigInteger, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False, index=True),
    Column("committed_sequence", BigInteger, nullable=False),  # unix: every report up to here is in the store
    Column("received_ranges", Text, nullable=False),  # udp: JSON [[first, last], …] of datagrams applied
    Column("farewell_sequence", BigInteger),  # the total said in a farewell; NULL while none came
    Column("reports_received", BigInteger, nullable=False),
    Column("reports_lost", BigInteger, nullable=False),
    Column("reports_duplicated", BigInteger, nullable=False),
    Column("dropped", Text, nullable=False),  # JSON {reason: total}, as the agent last said
    Column("recorded", BigInteger, nullable=False),
    Column("slices", BigInteger, nullable=False),
    Column("agent_cpu_us", BigInteger, nullable=False),
    Column("overhead", Text),  # JSON array of aiocop_wire.Overhead, as the agent last said; NULL where it never did
    Column("control", Text),  # JSON: whether the agent can be controlled, and what is in force; NULL: it never told
    Column("loops", Text),  # JSON, what its loops did of late (see store/loops.py); NULL where it never said
    sqlite_with_rowid=False,
)

hotspots: Final = Table(
    "hotspots",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("service_id", BigInteger, nullable=False, index=True),
    Column("path", String, nullable=False),
    Column("function", String, nullable=False),
    Column("status", String, nullable=False),  # open, regressed, resolved, ignored
    Column("note", Text, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("first_release_id", BigInteger, nullable=False),
    Column("last_release_id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

sites: Final = Table(
    "sites",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("hotspot_id", BigInteger, nullable=False, index=True),
    Column("service_id", BigInteger, nullable=False, index=True),
    Column("operation", String, nullable=False),
    Column("fingerprint", BigInteger, nullable=False),
    Column("cause", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("line", Integer, nullable=False),  # of the call site, as last defined
    Column("entry_path", String, nullable=False),
    Column("entry_line", Integer, nullable=False),
    Column("entry_function", String, nullable=False),
    Column("frames", Text, nullable=False),  # JSON [[path, line, function, kind], …], call to call site
    Column("advice", Text, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False),
    Column("first_release_id", BigInteger, nullable=False),
    Column("last_release_id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

traces: Final = Table(
    "traces",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("site_id", BigInteger, nullable=False, index=True),
    Column("frames", Text, nullable=False),  # JSON, innermost first, down to the slice's own callback
    Column("last_seen_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

slow_events: Final = Table(
    "slow_events",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("hotspot_id", BigInteger, primary_key=True, autoincrement=False),  # an event with two hotspots has two rows
    Column("agent_id", String(32), nullable=False),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("elapsed_us", BigInteger, nullable=False),
    Column("cause", String, nullable=False),
    Column("event", Text, nullable=False),  # JSON: the whole SlowEvent, its sites by this store's ids
    Index("ix_slow_events_hotspot_id_started_at_ms", "hotspot_id", "started_at_ms"),
    sqlite_with_rowid=False,
)

presence: Final = Table(
    "presence",
    metadata,
    Column("day_s", BigInteger, primary_key=True, autoincrement=False),
    Column("site_id", BigInteger, primary_key=True, autoincrement=False),
    Column("agent_id", String(32), primary_key=True),
    sqlite_with_rowid=False,
)

stalls: Final = Table(
    "stalls",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("agent_id", String(32), nullable=False, index=True),
    Column("service_id", BigInteger, nullable=False, index=True),
    Column("release_id", BigInteger, nullable=False),
    Column("slice_ns", BigInteger, nullable=False),  # names it among the agent's, as on the wire
    Column("state", String, nullable=False, index=True),  # frozen, died, ended
    Column("started_at_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger, nullable=False, index=True),
    Column("blocked_us", BigInteger, nullable=False),  # as of then
    Column("site_id", BigInteger),  # where it is or was, as far as known; may be one that no definition came for
    Column("wire_site_id", BigInteger),  # the same as the agent calls it
    Column("reported", Integer, nullable=False),  # 1: the agent said so; 0: the site entered last
    Column("counted", Integer, nullable=False),  # 1: the call was counted when it began
    Column("gil_held", Integer),  # 1: no thread of the process could run; NULL: nobody could see
    Column("died_count", Integer, nullable=False),  # died: what its death added to the count of its site
    Column("thread_name", String, nullable=False),
    Column("frames", Text, nullable=False),  # JSON, innermost first
    sqlite_with_rowid=False,
)

decisions: Final = Table(
    "decisions",
    metadata,
    Column("hotspot_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String, nullable=False),
    Column("resolved_release_id", BigInteger),  # the last release that may still have it; set while resolved
    Column("resolved_at_ms", BigInteger),
    Column("ignored_at_ms", BigInteger),  # set while ignored
    Column("ignored_until_ms", BigInteger),
    Column("ignored_below_ms_per_hour", BigInteger),
    sqlite_with_rowid=False,
)

rulings: Final = Table(
    "rulings",
    metadata,
    Column("hotspot_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", String, nullable=False),  # by rule; one that a person named wins
    Column("ignored", Integer, nullable=False),  # 1: a rule ignores it
    sqlite_with_rowid=False,
)

reweighted: Final = Table(
    "reweighted",
    metadata,
    Column("site_id", BigInteger, primary_key=True, autoincrement=False),
    Column("weight", Integer, nullable=False),  # as its agent defined it; a rule's is in sites.weight
    sqlite_with_rowid=False,
)

history: Final = Table(
    "history",
    metadata,
    Column("hotspot_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3, … per hotspot
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("changes", Text, nullable=False),  # JSON {field: [before, after]}
    sqlite_with_rowid=False,
)

control_revision: Final = Table(
    "control_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("revision", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

control_settings: Final = Table(
    "control_settings",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("scope", String, nullable=False),  # service or agent
    Column("name", String, nullable=False),  # of the service; of an agent its id
    Column("environment", String),  # NULL: the service in all of them
    Column("revision", BigInteger, nullable=False),  # at which it was changed last
    Column("wanted", Text, nullable=False),  # JSON {setting: value}; what is not there is not wanted
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("changed_by", String, nullable=False),
    sqlite_with_rowid=False,
)

control_history: Final = Table(
    "control_history",
    metadata,
    Column("settings_id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3, … per settings
    Column("at_ms", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("changes", Text, nullable=False),  # JSON {field: [before, after]}
    sqlite_with_rowid=False,
)

captures: Final = Table(
    "captures",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # the request's, as on the wire
    Column("settings_id", BigInteger, nullable=False, index=True),  # whom it was asked of
    Column("hotspot_id", BigInteger, nullable=False, index=True),
    Column("service_id", BigInteger, nullable=False),
    Column("place_id", BigInteger, nullable=False),  # the hotspot's path and function, as on the wire
    Column("requested_at_ms", BigInteger, nullable=False, index=True),
    Column("requested_by", String, nullable=False),
    Column("state", String, nullable=False),  # waiting, captured, cancelled
    Column("captured_at_ms", BigInteger),
    Column("agent_id", String(32)),  # who captured it
    Column("event", Text),  # JSON: the slow event with its detail
    sqlite_with_rowid=False,
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("webhook", String, nullable=False),
    Column("event", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("message", Text, nullable=False),  # JSON, as the json format sends it
    Column("attempts", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, index=True),  # when it is tried next; NULL once it was delivered or given up
    Column("result", Text, nullable=False),  # `delivered`, or what went wrong last
    sqlite_with_rowid=False,
)

BIN_COLUMNS: Final[tuple[str, ...]] = tuple(f"b{index:02}" for index in range(BIN_COUNT))


def _key_columns() -> Iterator[Column[Any]]:
    yield Column("bucket_s", BigInteger, primary_key=True, autoincrement=False)
    yield Column("site_id", BigInteger, primary_key=True, autoincrement=False)
    yield Column("release_id", BigInteger, primary_key=True, autoincrement=False)


def _counter_columns() -> Iterator[Column[Any]]:
    yield Column("count", BigInteger, nullable=False)
    yield Column("slow_count", BigInteger, nullable=False)
    yield Column("blocked_us", BigInteger, nullable=False)
    yield Column("max_us", BigInteger, nullable=False)


def _bin_columns() -> Iterator[Column[Any]]:
    for name in BIN_COLUMNS:
        yield Column(name, BigInteger)


def _rollups(resolution: str) -> Table:
    return Table(
        f"rollups_{resolution}",
        metadata,
        *_key_columns(),
        *_counter_columns(),
        sqlite_with_rowid=False,
    )


def _histograms(resolution: str) -> Table:
    return Table(
        f"histograms_{resolution}",
        metadata,
        *_key_columns(),
        *_bin_columns(),
        sqlite_with_rowid=False,
    )


@dataclass(frozen=True, slots=True)
class Resolution:
    """One size of bucket and the two tables that hold it."""

    name: str
    seconds: int
    rollups: Table
    histograms: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of its buckets: they are named after it and keyed by `bucket_s`."""
        ending = f"_{self.name}"
        return tuple(
            table
            for name, table in metadata.tables.items()
            if name.endswith(ending) and "bucket_s" in table.primary_key.columns
        )


RESOLUTIONS: Final[tuple[Resolution, ...]] = tuple(
    Resolution(name, seconds, _rollups(name), _histograms(name))
    for name, seconds in (("minute", 60), ("hour", 3600), ("day", 86_400))
)
"""Finest first."""

LOOP_COUNTERS: Final = (
    "observed_us",
    "blocked_us",
    "starved_us",
    "slow_slices",
    "waiting",
    "waiting_max",
    "lag_us",
    "lag_max_us",
)
"""As aiocop_wire.LoopDelta calls them."""


def _loops(resolution: str) -> Table:
    return Table(
        f"loops_{resolution}",
        metadata,
        Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
        Column("service_id", BigInteger, primary_key=True, autoincrement=False),
        *[Column(name, BigInteger, nullable=False) for name in LOOP_COUNTERS],
        *_bin_columns(),
        sqlite_with_rowid=False,
    )


LOOPS: Final[Mapping[str, Table]] = {resolution.name: _loops(resolution.name) for resolution in RESOLUTIONS}
"""How loops fare, by the name of the resolution: per (bucket, service) counters and the histogram of lag."""

spans: Final = Table(
    "spans",
    metadata,
    Column("span_s", BigInteger, primary_key=True, autoincrement=False),  # how long
    Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
    Column("summed_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def _span_key_columns() -> Iterator[Column[Any]]:
    yield Column("span_s", BigInteger, primary_key=True, autoincrement=False)
    yield from _key_columns()


span_rollups: Final = Table(
    "rollups_span", metadata, *_span_key_columns(), *_counter_columns(), sqlite_with_rowid=False
)

span_histograms: Final = Table(
    "histograms_span", metadata, *_span_key_columns(), *_bin_columns(), sqlite_with_rowid=False
)

horizons: Final = Table(
    "horizons",
    metadata,
    Column("resolution_s", BigInteger, primary_key=True, autoincrement=False),
    Column("from_s", BigInteger, nullable=False),  # Unix seconds, on an edge: buckets that start earlier are deleted
    sqlite_with_rowid=False,
)

about: Final = Table(
    "about",
    metadata,
    Column(
        "name", String, primary_key=True
    ),  # collector_version: who migrated it last; oldest_revision: who may work on
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

summed: Final = Table(
    "summed",
    metadata,
    Column("span_s", BigInteger, primary_key=True, autoincrement=False),  # how long
    Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),  # random: the same number stands for the same sums
    Column("ready", Integer, nullable=False),  # 0 while it is being summed
    sqlite_with_rowid=False,
)

summed_totals: Final = Table(
    "summed_totals",
    metadata,
    Column("span_s", BigInteger, primary_key=True, autoincrement=False),
    Column("bucket_s", BigInteger, primary_key=True, autoincrement=False),
    Column("totals", LargeBinary, nullable=False),  # see totals.py
    Column("presence", LargeBinary),  # of spans of whole days
    sqlite_with_rowid=False,
)

facts_changed: Final = Table(
    "facts_changed",
    metadata,
    Column("change", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""Written by triggers only: what this table holds stands for one state of all facts of sites and of the status of all
hotspots, and never comes back (see migration 0013)."""

presence_changed: Final = Table(
    "presence_changed",
    metadata,
    Column("service_id", BigInteger, primary_key=True, autoincrement=False),
    Column("change", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Written by a trigger only: a number stands for the rows of presence of a service's sites, of which some may have been
deleted since. No row for a service that nobody was seen at since there is this table (see migration 0014)."""


@event.listens_for(metadata, "after_create")
def _make_triggers(_metadata: MetaData, connection: Connection, **_options: object) -> None:
    name = connection.dialect.name
    for statement in (*fact_triggers(name), *presence_triggers(name)):
        connection.exec_driver_sql(statement)
