"""One stream in this process: what a peer can do to the collector's memory."""

import asyncio
import contextlib
import socket
from datetime import timedelta

import pytest
from tests.support.collector import make_identity, make_report, make_site
from tests.support.waiting import DEADLINE_S

from aiocop_collector.counters import Counters
from aiocop_collector.receive import session as session_module
from aiocop_collector.receive.session import Session
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.writer import Store
from aiocop_wire import Define, FrameReader, Hello, Welcome, decode, encode, frame


@pytest.fixture
async def counters():
    return Counters()


@pytest.fixture
async def store(tmp_path, counters):
    engine = open_engine(f"sqlite:///{tmp_path}/c.sqlite3")
    await prepare(engine)
    store = Store(engine, counters, retention=timedelta(days=30))
    yield store
    assert await store.stop(30)
    await engine.dispose()


@contextlib.asynccontextmanager
async def run_session(store, counters):
    """A session, and the other end of its stream."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(30)
    reader, writer = await asyncio.open_connection(sock=ours)
    session = Session(reader, writer, store, counters)
    task = asyncio.create_task(session.run())
    try:
        yield session, theirs, task
    finally:
        task.cancel()
        await asyncio.wait([task])
        theirs.close()


async def until(condition) -> None:
    deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s
        await asyncio.sleep(0.001)


async def greet(peer, identity) -> None:
    peer.sendall(frame(encode(Hello(identity))))
    frames = FrameReader()
    (raw,) = frames.feed(await asyncio.to_thread(peer.recv, 4096))
    assert isinstance(decode(raw), Welcome)


async def test_an_agent_that_reads_no_acknowledgements_is_cut_off(store, counters):
    async with run_session(store, counters) as (session, peer, task):
        await greet(peer, make_identity())
        sequence = 0
        while not counters.totals().get("slow_readers") and sequence < 1_000_000:
            sequence += 1
            session._sender.committed(sequence)
        assert sequence < 100_000
        await asyncio.wait_for(asyncio.wait([task]), 30)
    assert counters.totals()["slow_readers"] == 1
    store.start()


async def test_a_peer_that_says_nothing_is_let_go(store, counters, monkeypatch):
    monkeypatch.setattr(session_module, "HELLO_TIMEOUT_S", 0.01)
    async with run_session(store, counters) as (_, peer, task):
        await asyncio.wait_for(asyncio.wait([task]), 30)
        assert await asyncio.to_thread(peer.recv, 10) == b""
    assert counters.totals()["hello_timeouts"] == 1
    store.start()


async def test_a_full_store_stops_the_reading_and_loses_nothing(store, counters, monkeypatch):
    monkeypatch.setattr("aiocop_collector.store.writer.PENDING_BYTES", 20_000)
    async with run_session(store, counters) as (_, peer, _task):
        await greet(peer, make_identity())
        definition = frame(encode(Define(tuple(make_site(number) for number in range(100)))))
        from_peer = asyncio.create_task(asyncio.to_thread(peer.sendall, definition * 500))
        done, _ = await asyncio.wait([from_peer], timeout=0.5)
        assert not done, "everything was read although nothing was committed"
        assert store.status().pending_bytes < 20_000 + 2 * session_module.MAX_MESSAGE_BYTES
        store.start()
        await asyncio.wait_for(from_peer, 60)


async def test_what_comes_after_the_last_commit_stays_with_its_sender(store, counters):
    """Or the collector would end by saying that it could not commit what it had never promised to."""
    store.start()
    async with run_session(store, counters) as (_, peer, _):
        await greet(peer, make_identity())
        assert await store.stop(30)
        peer.sendall(frame(encode(make_report(1))))
        await until(lambda: counters.totals().get("reports_unix"))
        assert store.status().pending_reports == 0
        assert store.status().pending_bytes == 0
