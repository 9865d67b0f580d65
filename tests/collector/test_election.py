"""Real collectors on one PostgreSQL: one of them has each duty, and another takes over when it is gone."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.support.collector import (
    CollectorProcess,
    StreamPeer,
    make_identity,
    make_report,
    make_site,
    now_ms,
    run_collector,
)
from tests.support.sql import make_database, run_sql
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import WebhookReceiver, run_webhook_receiver

from aiocop_wire import Define, SiteDelta

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

UPKEEP, WEBHOOK = "upkeep", "webhook ops"
LATE_MS = 1_800_000


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with run_webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
def store_url(postgres_url) -> str:
    return make_database(postgres_url)


@pytest.fixture
def collectors(request, store_url, receiver, tmp_path) -> Iterator[list[CollectorProcess]]:
    """So many on one store."""
    config = tmp_path / "collector.toml"
    config.write_text(f'[[webhooks]]\nname = "ops"\nurl = "{receiver.url}"\n')
    with ExitStack() as stack:
        started = []
        for number in range(request.param):
            folder = tmp_path / str(number)
            folder.mkdir()
            arguments = ("--database", store_url, "--config", str(config))
            started.append(stack.enter_context(run_collector(folder, *arguments)))
        yield started


def elected(collectors: list[CollectorProcess], duty: str) -> list[CollectorProcess]:
    return [collector for collector in collectors if collector.http.get("/readyz").json()["duties"][duty]]


def wait_for_one(collectors: list[CollectorProcess], duty: str) -> CollectorProcess:
    (one,) = wait_until(lambda: elected(collectors, duty), f"somebody elected for {duty}")
    return one


def report(collector: CollectorProcess, number: int, age_ms: int = 0) -> None:
    """A slow slice of a new agent at a new site."""
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(make_identity())
        slow = SiteDelta(number, 1, 1, 90_000, 90_000)
        agent.send(Define((make_site(number),)), make_report(1, slow, started_at_ms=now_ms() - age_ms))
        agent.wait_for_ack(1)


def wait_until_told(receiver: WebhookReceiver, last: int) -> None:
    """Of each hotspot from the first to `last`, once."""
    expected = sorted(f"shop/orders.py:{number}:function_{number}" for number in range(1, last + 1))
    wait_until(lambda: len(receiver.received) >= last, f"{last} messages")
    assert sorted(one.json["data"]["hotspot"]["call_site"] for one in receiver.received) == expected


@pytest.mark.parametrize("collectors", [3], indirect=True)
def test_the_duties_of_a_killed_collector_are_taken_over(collectors, store_url, receiver):
    for number, collector in enumerate(collectors, start=1):
        report(collector, number)
    wait_until_told(receiver, 3)
    left = list(collectors)
    for number, duty in enumerate((WEBHOOK, UPKEEP), start=4):
        gone = wait_for_one(left, duty)
        gone.kill()
        left.remove(gone)
        report(left[-1], number, LATE_MS)  # in a minute whose span is over
        wait_until_told(receiver, number)
    assert wait_for_one(left, UPKEEP) is left[0]
    # The last report struck off what an earlier holder may have summed there.
    late = "SELECT 1 FROM summed WHERE ready = 1 AND bucket_s + span_s <= :until_s"
    until_s = (now_ms() - LATE_MS // 2) // 1000
    wait_until(lambda: run_sql(store_url, late, until_s=until_s), "the spans to be summed by the last one")
    (row,) = left[0].get("/services", since="1h")["services"]
    assert row["count"] == 5
    assert run_sql(store_url, "SELECT result, count(*) FROM outbox GROUP BY result") == [("delivered", 5)]
    assert len(receiver.received) == 5


@pytest.mark.parametrize("collectors", [2], indirect=True)
def test_a_collector_that_is_cut_off_or_frozen_is_replaced(collectors, store_url):
    before = wait_for_one(collectors, UPKEEP)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
    assert run_sql(store_url, cut, name="aiocop-collector election")
    wait_until(lambda: "no longer elected" in before.log.read_text(), "the one that was elected to notice")
    frozen = wait_for_one(collectors, UPKEEP)
    frozen.signal(signal.SIGSTOP)
    (other,) = [collector for collector in collectors if collector is not frozen]
    after = wait_for_one([other], UPKEEP)
    frozen.signal(signal.SIGCONT)
    assert elected([frozen], UPKEEP) == []
    assert 'aiocop_collector_elected{duty="upkeep"} 0.0' in frozen.http.get("/metrics").text
    assert 'aiocop_collector_elected{duty="upkeep"} 1.0' in after.http.get("/metrics").text
    assert after.stop() == 0
    wait_for_one([frozen], UPKEEP)
