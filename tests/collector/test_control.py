"""What people want of agents: the API, the writer and the collectors that tell agents, on both databases."""

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site, now_ms
from tests.support.sql import make_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.receive import Controls
from aiocop_collector.store.control import Subject, Wanted, load_all_wanted
from aiocop_collector.store.database import WRITES, open_engine, prepare
from aiocop_collector.store.retention import expired
from aiocop_collector.store.writer import Store
from aiocop_wire import Capture, CapturedMoment, Control, Frame, SiteDelta, SlowEvent, SlowSite, place_id

FRAMES = (Frame("shop/orders.py", 1, "function_1"), Frame("shop/app.py", 9, "main"))


class World:
    """A store, what agents report to it, and its API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = open_engine(url)
        self.now_ms = now_ms()
        self._sequences: dict[bytes, int] = {}

    async def report(self, identity, *events, **fields) -> None:
        """One report with these slow events, committed now."""
        sequence = self._sequences[identity.instance] = self._sequences.get(identity.instance, 0) + 1
        report = make_report(
            sequence, SiteDelta(1, 1, 1, 50_000, 50_000), started_at_ms=self.now_ms, slow_events=events
        )
        store = Store(self.engine, Counters(), retention=timedelta(days=30), clock_s=lambda: self.now_ms / 1000)
        store.offer(Arrival(identity, "unix", 100, allows_control=True))
        store.offer(Arrival(identity, "unix", 100, report, (make_site(1),), **fields))
        store.start()
        assert await store.stop(60)
        self.now_ms += 1000

    async def wanted(self, identity) -> Control:
        async with self.engine.connect() as connection:
            everything = await load_all_wanted(connection, self.now_ms)
        return everything.of_agent(identity.instance.hex(), identity.service, identity.environment)

    @asynccontextmanager
    async def api(self):
        app = make_app(self.engine, clock_s=lambda: self.now_ms / 1000)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
            yield client


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/collector.db"
    return make_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def world(url):
    made = World(url)
    await prepare(made.engine)
    yield made
    await made.engine.dispose()


async def patch(client, path, **body) -> dict:
    answer = await client.patch(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_narrower_level_wins_field_by_field_and_null_gives_back(world):
    agent = make_identity(environment="prod")
    other = make_identity(environment="staging")
    await world.report(agent)
    async with world.api() as client:
        await patch(client, "/services/shop", active=False, threshold_ms=20, trace_depth=10)
        await patch(client, "/services/shop?environment=prod", threshold_ms=5.5)
        await patch(client, f"/agents/{agent.instance.hex()}", active=True)
        assert await world.wanted(agent) == Control(3, True, 5_500, 10)
        assert await world.wanted(other) == Control(1, False, 20_000, 10)
        assert await world.wanted(make_identity("mail")) == Control(0)
        answer = await patch(client, "/services/shop?environment=prod", threshold_ms=None)
        assert (await world.wanted(agent)).threshold_us == 20_000
        assert answer["wanted"] == {"active": None, "active_share": None, "threshold_ms": None, "trace_depth": None}
        assert [entry["changes"] for entry in answer["history"]] == [
            {"threshold_ms": [5.5, None]},
            {"threshold_ms": [None, 5.5]},
        ]
        assert {entry["who"] for entry in answer["history"]} == {"local"}
        (row,) = (await client.get("/services")).json()["services"]
        assert row["control"]["wanted"] == {
            "active": False, "active_share": None, "threshold_ms": 20.0, "trace_depth": 10,
        }  # fmt: skip


async def test_a_share_and_active_take_each_others_place(world):
    async with world.api() as client:
        assert (await patch(client, "/services/shop", active=False))["wanted"]["active"] is False
        answer = await patch(client, "/services/shop", active_share=0.25)
        assert (answer["wanted"]["active"], answer["wanted"]["active_share"]) == (None, 0.25)
        answer = await patch(client, "/services/shop", active=True)
        assert (answer["wanted"]["active"], answer["wanted"]["active_share"]) == (True, None)


def test_a_larger_share_contains_a_smaller_one():
    ids = [os.urandom(16).hex() for _ in range(2_000)]

    def active(share: float) -> set[str]:
        return {one for one in ids if Wanted(active_share=share).is_active(one)}

    assert active(0) == set()
    assert active(0.2) <= active(0.5) <= active(1.0) == set(ids)
    assert 0.4 < len(active(0.5)) / len(ids) < 0.6  # a billion to one, were it not so


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/services/shop", {"threshold_ms": 0.5}, "threshold_ms"),
        ("/services/shop", {"threshold_ms": 600_001}, "threshold_ms"),
        ("/services/shop", {"trace_depth": 0}, "trace_depth"),
        ("/services/shop", {"active_share": 1.1}, "active_share"),
        ("/services/shop", {"active": True, "active_share": 0.5}, "active_share"),
        ("/services/shop", {"threshhold_ms": 5}, "threshhold_ms"),
        ("/services/shop?environment=a&enviroment=b", {}, "enviroment"),
        ("/services/mail", {"capture": "HOTSPOT"}, "capture"),
        ("/services/shop?environment=other", {"capture": "HOTSPOT"}, "capture"),
        ("/agents/AGENT", {"active_share": 0.5}, "active_share"),
        ("/agents/AGENT", {"trace_depth": 65}, "trace_depth"),
    ],
)
async def test_what_cannot_be_is_refused_and_named(world, path, body, parameter):
    agent = make_identity()
    await world.report(agent)
    async with world.api() as client:
        hotspot = (await client.get("/hotspots")).json()["hotspots"][0]["id"]
        body = {name: hotspot if value == "HOTSPOT" else value for name, value in body.items()}
        answer = await client.patch(path.replace("AGENT", agent.instance.hex()), json=body)
        assert answer.status_code == 422, answer.text
        assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]
        assert await world.wanted(agent) == Control(0)


async def test_what_is_not_there_is_not_found_but_services_may_come_later(world):
    async with world.api() as client:
        assert (await client.patch(f"/agents/{'0' * 32}", json={"active": False})).status_code == 404
        assert (await client.patch("/services/shop", json={"capture": "0" * 16})).status_code == 404
        answer = await patch(client, "/services/team/a b%2Fc", threshold_ms=5)
        assert (answer["name"], answer["agents"]["reachable"]) == ("team/a b/c", 0)
        assert (await world.wanted(make_identity("team/a b/c"))).threshold_us == 5_000


async def test_changes_at_the_same_time_are_all_kept_each_with_its_revision(world):
    async with world.api() as client:
        answers = await asyncio.gather(
            *(patch(client, f"/services/service-{number % 4}", threshold_ms=number + 1) for number in range(12))
        )
        revisions = [answer["revision"] for answer in answers]
        assert max(revisions) == 12
        last = await patch(client, "/services/service-3", active=False)
        assert last["revision"] == 13
        assert len(last["history"]) == 4


def captured(request: str, number: int = 1) -> SlowEvent:
    detail = Capture(
        int(request, 16),
        (CapturedMoment(10, 44_000, 1, 0), CapturedMoment(20_000, -1, 0, -1)),
        (FRAMES,),
    )
    return SlowEvent(now_ms(), 45_000 + number, 30_000, "io", 10, (SlowSite(1, 1, 44_000),), capture=detail)


async def test_a_capture_is_asked_for_until_it_comes_and_is_shown_at_its_hotspot(world):
    agent, stranger = make_identity(), make_identity("mail")
    await world.report(agent)
    await world.report(stranger)
    async with world.api() as client:
        (hotspot,) = [one["id"] for one in (await client.get("/hotspots?service=shop")).json()["hotspots"]]
        asked = await patch(client, "/services/shop", capture=hotspot)
        (capture,) = asked["captures"]
        assert (capture["state"], capture["requested_by"], capture["slice"]) == ("waiting", "local", None)
        assert (await patch(client, "/services/shop", capture=hotspot))["captures"] == [capture]  # said twice
        wanted = await world.wanted(agent)
        assert [request.request_id for request in wanted.captures] == [int(capture["id"], 16)]
        assert wanted.captures[0].place_id == place_id("shop/orders.py", "function_1")
        await world.report(stranger, captured(capture["id"]))  # was not asked, and is not believed
        assert (await world.wanted(agent)).captures
        await world.report(agent, captured(capture["id"], 1))
        await world.report(agent, captured(capture["id"], 2))
        after = await world.wanted(agent)
        assert after.captures == ()
        assert after.revision > wanted.revision
        detail = (await client.get(f"/hotspots/{hotspot}")).json()
        (shown,) = detail["captures"]
        assert (shown["state"], shown["agent"]) == ("captured", agent.instance.hex())
        assert shown["slice"]["elapsed_ms"] == 45.001
        assert [(one["at_ms"], one["blocked_ms"], one["trace"]) for one in shown["slice"]["moments"]] == [
            (0.01, 44.0, 0),
            (20.0, None, None),
        ]
        assert shown["slice"]["moments"][0]["site_id"] == detail["sites"][0]["id"]
        assert [frame["function"] for frame in shown["slice"]["traces"][0]] == ["function_1", "main"]
        assert {event["capture"] for event in detail["slow_events"]} == {shown["id"]}


async def test_a_capture_can_be_taken_back_and_is_not_waited_for_for_ever(world):
    agent = make_identity()
    await world.report(agent)
    async with world.api() as client:
        (hotspot,) = [one["id"] for one in (await client.get("/hotspots")).json()["hotspots"]]
        path = f"/agents/{agent.instance.hex()}"
        await patch(client, path, capture=hotspot)
        cancelled = await patch(client, path, capture=None)
        assert cancelled["captures"][0]["state"] == "cancelled"
        assert (await world.wanted(agent)).captures == ()
        world.now_ms += 1
        await patch(client, path, capture=hotspot)
        world.now_ms += 3_600_000
        assert (await world.wanted(agent)).captures == ()
        states = [one["state"] for one in (await client.get(f"/hotspots/{hotspot}")).json()["captures"]]
        assert states == ["expired", "cancelled"]


async def test_a_change_is_told_by_every_collector_on_the_store_and_only_to_those_it_concerns(world):
    told: asyncio.Queue[tuple[str, Control]] = asyncio.Queue()
    engine = open_engine(world.url)
    collectors = Controls(world.engine), Controls(engine)
    for controls, service in zip(collectors, ("shop", "mail"), strict=True):
        controls.start()
        controls.join(make_identity(service), lambda control, service=service: told.put_nowait((service, control)))
    try:
        first = [await asyncio.wait_for(told.get(), 60) for _ in collectors]
        assert sorted(first) == [("mail", Control(0)), ("shop", Control(0))]
        async with world.api() as client:
            for revision, service in ((1, "mail"), (2, "shop"), (3, "mail")):
                await patch(client, f"/services/{service}", threshold_ms=revision)
                assert await asyncio.wait_for(told.get(), 60) == (
                    service,
                    Control(revision, threshold_us=revision * 1000),
                )
        assert told.empty()
    finally:
        for controls in collectors:
            await controls.stop()
        await engine.dispose()


async def test_settings_of_agents_go_with_them_those_of_services_stay(world):
    agent = make_identity()
    await world.report(agent)
    async with world.api() as client:
        await patch(client, f"/agents/{agent.instance.hex()}", threshold_ms=5)
        await patch(client, "/services/shop", threshold_ms=6)
    world.now_ms += 40 * 86_400_000
    async with world.engine.connect() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():
            for old in expired(timedelta(days=30), world.now_ms):
                await old.delete_batch(connection)
    async with world.engine.connect() as connection:
        everything = await load_all_wanted(connection, world.now_ms)
    assert {row.subject for row in everything.settings.values()} == {Subject("service", "shop")}
