"""What people decide about hotspots, and what activity does to it: the API and the writer on one database."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select, text
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site, now_ms

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

HOUR_MS = 3_600_000


class Writer:
    """Commits reports at a time of the test's choosing."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.now_ms = now_ms()
        self._sequences: dict[bytes, int] = {}

    async def report(self, *reports) -> None:
        """(identity, blocked_us) each, committed in one transaction now."""
        store = Store(self.engine, Counters(), retention=timedelta(days=30), clock_s=lambda: self.now_ms / 1000)
        for identity, blocked_us in reports:
            sequence = self._sequences[identity.instance] = self._sequences.get(identity.instance, 0) + 1
            report = make_report(sequence, SiteDelta(1, 1, 1, blocked_us, blocked_us), started_at_ms=self.now_ms)
            store.offer(Arrival(identity, "unix", 100, report, (make_site(1),)))
        store.start()
        assert await store.stop(60)
        self.now_ms += 1000

    async def hotspot_id(self) -> str:
        async with self.engine.connect() as connection:
            return to_hex((await connection.execute(select(schema.hotspots.c.id))).scalar_one())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def writer(request, own_store):
    if request.param == "sqlite":
        await prepare(own_store)
        yield Writer(own_store)
        return
    server = request.getfixturevalue("postgres_url")
    name = f"triage_{abs(hash(request.node.nodeid)) % 10**9}"
    admin = open_engine(server)
    async with admin.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text(f"CREATE DATABASE {name}")
        )
    await admin.dispose()
    engine = open_engine(server.rpartition("/")[0] + f"/{name}")
    await prepare(engine)
    yield Writer(engine)
    await engine.dispose()


@asynccontextmanager
async def serving(writer):
    app = make_app(writer.engine, clock_s=lambda: writer.now_ms / 1000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
        yield client


async def patch(client, writer, **body) -> dict:
    answer = await client.patch(f"/hotspots/{await writer.hotspot_id()}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def status(client, writer) -> str:
    return (await client.get(f"/hotspots/{await writer.hotspot_id()}")).json()["status"]


async def test_only_a_later_release_makes_a_resolved_hotspot_regress(writer):
    old, fixed, later = (make_identity(release=name) for name in ("1.10", "1.9", "1.8"))  # names say nothing
    async with serving(writer) as client:
        await writer.report((old, 9))
        await writer.report((fixed, 9))
        decided = await patch(client, writer, status="resolved")
        assert (decided["status"], decided["resolved_in_release"]) == ("resolved", "1.9")
        await writer.report((old, 9), (fixed, 9))
        await writer.report((make_identity(release="1.10"), 9))
        assert await status(client, writer) == "resolved"
        await writer.report((old, 9), (later, 9), (fixed, 9))
        assert await status(client, writer) == "regressed"
        shown = (await client.get(f"/hotspots/{await writer.hotspot_id()}")).json()
        assert shown["resolved_in_release"] is None
        assert [(entry["who"], entry["changes"]) for entry in shown["history"]] == [
            ("collector", {"status": ["resolved", "regressed"], "release": [None, "1.8"]}),
            ("local", {"status": ["open", "resolved"], "resolved_in_release": [None, "1.9"]}),
        ]
        # Resolved again: the newest release counts, although an older one reported after it.
        assert (await patch(client, writer, status="resolved"))["resolved_in_release"] == "1.8"
        await writer.report((later, 9))
        assert await status(client, writer) == "resolved"
        await patch(client, writer, status="resolved", release="1.9")
        await writer.report((later, 9))
        assert await status(client, writer) == "regressed"


async def test_the_same_release_name_elsewhere_is_another_release(writer):
    """First sight is per service and environment."""
    async with serving(writer) as client:
        await writer.report((make_identity(release="2"), 9))
        hotspot = await writer.hotspot_id()
        assert (await client.patch(f"/hotspots/{hotspot}", json={"status": "resolved"})).status_code == 200
        await writer.report((make_identity(release="3", environment="staging"), 9))
        assert (await client.get(f"/hotspots/{hotspot}")).json()["status"] == "resolved"
        await writer.report((make_identity(release="3"), 9))
        assert (await client.get(f"/hotspots/{hotspot}")).json()["status"] == "regressed"


async def test_without_releases_the_start_of_the_process_decides(writer):
    before = make_identity(release="")._replace(started_at_ms=writer.now_ms - HOUR_MS)
    async with serving(writer) as client:
        await writer.report((before, 9))
        await patch(client, writer, status="resolved")
        await writer.report((before, 9))
        assert await status(client, writer) == "resolved"
        after = make_identity(release="")._replace(started_at_ms=writer.now_ms + 1)
        await writer.report((before, 9), (after, 9))
        assert await status(client, writer) == "regressed"


async def test_activity_after_the_time_ends_ignoring(writer):
    agent = make_identity()
    async with serving(writer) as client:
        await writer.report((agent, 9))
        decided = await patch(client, writer, status="ignored", until="2h", note="until the release")
        assert decided["ignored_until"].endswith("Z")
        writer.now_ms += HOUR_MS
        await writer.report((agent, 9))
        assert await status(client, writer) == "ignored"
        writer.now_ms += HOUR_MS
        await writer.report((agent, 9))
        shown = (await client.get(f"/hotspots/{await writer.hotspot_id()}")).json()
        assert (shown["status"], shown["ignored_until"], shown["note"]) == ("open", None, "until the release")


async def test_more_than_was_allowed_within_an_hour_ends_ignoring(writer):
    agent = make_identity()
    async with serving(writer) as client:
        await writer.report((agent, 90_000_000))
        writer.now_ms += 60_000
        decided = await patch(client, writer, status="ignored", below_ms_per_hour=100)
        assert decided["ignored_below_ms_per_hour"] == 100
        await writer.report((agent, 60_000))
        writer.now_ms += HOUR_MS
        await writer.report((agent, 60_000))
        assert await status(client, writer) == "ignored"
        writer.now_ms += HOUR_MS // 2
        await writer.report((agent, 60_000))
        assert await status(client, writer) == "open"


async def test_ignored_without_conditions_stays_ignored(writer):
    agent = make_identity()
    async with serving(writer) as client:
        await writer.report((agent, 9))
        await patch(client, writer, status="ignored")
        writer.now_ms += 1000 * HOUR_MS
        await writer.report((agent, 1 << 40), (make_identity(release="9"), 1 << 40))
        assert await status(client, writer) == "ignored"


async def test_decisions_and_reports_at_once_lose_nothing(writer):
    """A decision and the writer's own change are taken one after the other, with numbers of their own."""
    agents = [make_identity(release=str(number)) for number in range(20)]
    async with serving(writer) as client:
        await writer.report((agents[0], 9))
        for number in range(1, 20):
            await asyncio.gather(
                patch(client, writer, status="resolved", owner=f"team-{number}"), writer.report((agents[number], 9))
            )
        shown = (await client.get(f"/hotspots/{await writer.hotspot_id()}")).json()
        owners = [entry["changes"]["owner"][1] for entry in shown["history"] if "owner" in entry["changes"]]
        assert owners == [f"team-{number}" for number in range(19, 0, -1)]
        state = "open"
        for entry in reversed(shown["history"]):
            if "status" in entry["changes"]:
                before, state_after = entry["changes"]["status"]
                assert before == state
                state = state_after
        assert state == shown["status"]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"release": "1.0"}, "release"),
        ({"status": "ignored", "release": "1.0"}, "release"),
        ({"status": "resolved", "release": "0.9"}, "release"),
        ({"status": "open", "until": "1d"}, "until"),
        ({"status": "ignored", "until": "2001-01-01T00:00:00Z"}, "until"),
        ({"status": "ignored", "until": "soon"}, "until"),
        ({"below_ms_per_hour": 5}, "below_ms_per_hour"),
        ({"status": "ignored", "below_ms_per_hour": 0}, "below_ms_per_hour"),
    ],
)
async def test_a_condition_without_its_status_is_refused(writer, body, parameter):
    async with serving(writer) as client:
        await writer.report((make_identity(), 9))
        answer = await client.patch(f"/hotspots/{await writer.hotspot_id()}", json=body)
        assert answer.status_code == 422, answer.text
        assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]
        assert (await client.get(f"/hotspots/{await writer.hotspot_id()}")).json()["history"] == []
