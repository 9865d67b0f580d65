"""Questions go first: a commit waits for them between its steps, for a bounded time, and not where it must not."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from tests.support.collector import make_identity, make_report, make_site
from tests.support.waiting import DEADLINE_S

from aiocop_collector.app import collector_of, create_app
from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.precedence import GivingWay, Precedence
from aiocop_collector.queries import questions
from aiocop_collector.settings import Settings
from aiocop_collector.store import writer
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

FOR_EVER_S = 3600.0


@pytest.fixture(autouse=True)
def every_step_is_long(monkeypatch):
    monkeypatch.setattr("aiocop_collector.precedence._STEP_S", 0.0)


@pytest.fixture
async def engine(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/c.sqlite3")
    await prepare(engine)
    yield engine
    await engine.dispose()


async def turns(number: int = 20) -> None:
    """Whoever can go on does."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_work_waits_until_all_questions_are_answered():
    precedence, urgent = Precedence(), asyncio.Event()
    with precedence.question():
        with precedence.question():
            waiting = asyncio.create_task(GivingWay(precedence, FOR_EVER_S, urgent)())
            await turns()
            assert not waiting.done()
        await turns()
        assert precedence.is_asked
        assert not waiting.done()
    await asyncio.wait_for(waiting, 60)
    assert not precedence.is_asked
    await GivingWay(precedence, FOR_EVER_S, urgent)()  # nobody asks: nothing to wait for


async def test_a_question_that_failed_is_waited_for_no_longer():
    precedence = Precedence()
    with pytest.raises(LookupError), precedence.question():
        raise LookupError
    assert not precedence.is_asked
    await asyncio.wait_for(GivingWay(precedence, FOR_EVER_S, asyncio.Event())(), 60)


async def test_what_is_urgent_does_not_wait_nor_go_on_waiting():
    precedence, urgent = Precedence(), asyncio.Event()
    with precedence.question():
        waiting = asyncio.create_task(GivingWay(precedence, FOR_EVER_S, urgent)())
        await turns()
        assert not waiting.done()
        urgent.set()
        await asyncio.wait_for(waiting, 60)
        await asyncio.wait_for(GivingWay(precedence, FOR_EVER_S, urgent)(), 60)


async def test_work_waits_for_so_long_altogether():
    precedence = Precedence()
    give_way = GivingWay(precedence, 0.01, asyncio.Event())
    with precedence.question():
        for _ in range(100):
            await asyncio.wait_for(give_way(), 60)


async def until(condition: Callable[[], bool]) -> None:
    give_up_at_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at_s, "waited in vain"
        await asyncio.sleep(0.001)


def arrival(transport, sequence: int = 1) -> Arrival:
    report = make_report(sequence, SiteDelta(1, 1, 0, 9, 9))
    return Arrival(make_identity(), transport, 100, report, (make_site(1),))


async def test_a_commit_waits_for_the_question_that_is_being_answered(engine, monkeypatch):
    monkeypatch.setattr(writer, "GIVE_WAY_S", FOR_EVER_S)
    precedence, counters = Precedence(), Counters()
    store = Store(engine, counters, retention=timedelta(days=30), precedence=precedence)
    with precedence.question():
        store.offer(arrival("unix"))
        store.start()
        await until(lambda: store.status().writer == "writing")
        await asyncio.sleep(0.05)
        assert store.status().pending_reports == 1
    await until(lambda: not store.status().pending_reports)
    assert await store.stop(60)


async def test_no_commit_waits_that_a_question_waits_for(engine, monkeypatch):
    """The second question wants to see a datagram that came before it; the first one is long."""
    monkeypatch.setattr(writer, "GIVE_WAY_S", FOR_EVER_S)
    precedence = Precedence()
    store = Store(engine, Counters(), retention=timedelta(days=30), precedence=precedence)
    store.start()
    with precedence.question():
        for sequence in range(1, 4):
            store.offer(arrival("unix", sequence))
            store.offer(arrival("udp", sequence))
            await asyncio.wait_for(store.settle(), 60)
            assert store.status().pending_reports == 0
        store.offer(arrival("unix", 4))
        assert await store.stop(60), "and none of a collector that ends"


async def test_commits_go_on_however_long_questions_take(engine):
    precedence = Precedence()
    store = Store(engine, Counters(), retention=timedelta(days=30), precedence=precedence)
    store.start()
    with precedence.question():
        for sequence in range(1, 4):
            store.offer(arrival("unix", sequence))
            await until(lambda: not store.status().pending_reports)
    assert await store.stop(60)


async def test_a_collectors_commits_give_way_to_its_own_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "GIVE_WAY_S", FOR_EVER_S)
    answering, may_answer = asyncio.Event(), asyncio.Event()

    async def slowly(*arguments, **named):
        answering.set()
        await may_answer.wait()
        return await ask_services(*arguments, **named)

    ask_services = questions.ask_services
    monkeypatch.setattr(questions, "ask_services", slowly)
    settings = Settings(
        database=f"sqlite:///{tmp_path}/c.sqlite3", http="127.0.0.1:0", listen=(f"unix://{tmp_path}/collector.sock",)
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        store = collector_of(app).store
        answer = asyncio.create_task(client.get("/services"))
        await asyncio.wait_for(answering.wait(), 60)
        store.offer(arrival("unix"))
        await until(lambda: store.status().writer == "writing")
        await asyncio.sleep(0.05)
        assert store.status().pending_reports == 1
        may_answer.set()
        assert (await answer).json()["services"] == []
        await until(lambda: not store.status().pending_reports)
        assert [row["name"] for row in (await client.get("/services")).json()["services"]] == ["shop"]
