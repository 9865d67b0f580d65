"""Webhooks of a real collector: each event once, signed, through failures, kills and rates."""

import json
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, now_ms, run_collector
from tests.support.sql import run_sql
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import run_webhook_receiver

from aiocop_collector.config_file import read_config
from aiocop_collector.errors import SettingsError
from aiocop_collector.webhooks.message_texts import body_of
from aiocop_wire import Define, SiteDelta, Stall

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SLOW = SiteDelta(1, 1, 1, 90_000, 90_000)


@pytest.fixture
def receiver():
    with run_webhook_receiver() as receiver:
        yield receiver


def write_config(folder: Path, receiver, more: str = "") -> str:
    path = folder / "collector.toml"
    path.write_text(
        'public_url = "https://aiocop.example/"\n'
        f'[[webhooks]]\nname = "ops"\nurl = "{receiver.url}"\nsecret_env = "HOOK_SECRET"\n{more}'
    )
    return str(path)


def report(collector, identity, *deltas, sequence=1, sites=(1,)) -> None:
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(identity)
        agent.send(Define(tuple(make_site(number) for number in sites)), make_report(sequence, *deltas))
        agent.wait_for_ack(sequence)


def test_events_are_told_once_and_signed(tmp_path, receiver, store_url):
    config = write_config(tmp_path, receiver)
    with run_collector(tmp_path, "--config", config, "--database", store_url, HOOK_SECRET=SECRET) as collector:
        first, later = make_identity(release="1.0"), make_identity(release="2.0")
        report(collector, first, SLOW, SiteDelta(2, 9, 0, 500, 90), sites=(1, 2))
        report(collector, first, SLOW, sequence=2)
        wait_until(lambda: receiver.received, "the new hotspot")
        rows = collector.get("/hotspots")["hotspots"]
        told = [(row["id"], row["call_site"], row["count"], row["first_seen"], row["last_seen"]) for row in rows]
        assert sorted(row["call_site"] for row in rows) == [f"shop/orders.py:{n}:function_{n}" for n in (1, 2)], told
        row = next(row for row in rows if row["call_site"].endswith(":function_1"))
        assert collector.http.patch(f"/hotspots/{row['id']}", json={"status": "resolved"}).status_code == 200
        report(collector, first, SLOW, sequence=3)
        report(collector, later, SLOW)
        report(collector, later, SLOW, sequence=2)
        wait_until(lambda: receiver.of("regressed"), "the regression")
        assert collector.stop() == 0
    assert [one.json["type"] for one in receiver.received] == ["new_hotspot", "regressed"]
    new, regressed = receiver.received
    about = new.json["data"]["hotspot"]
    assert about["id"] == row["id"]
    assert about["url"] == f"https://aiocop.example/hotspots/{row['id']}"
    assert (about["call_site"], about["operations"]) == ("shop/orders.py:1:function_1", ["open"])
    assert regressed.json["data"]["release"] == "2.0"
    assert new.id != regressed.id
    for one in receiver.received:
        Webhook(SECRET).verify(one.body, one.headers)


def test_a_failing_receiver_gets_the_same_message_again(tmp_path, receiver):
    receiver.statuses = [500, 204]
    config = write_config(tmp_path, receiver)
    with run_collector(tmp_path, "--config", config, HOOK_SECRET=SECRET) as collector:
        report(collector, make_identity(), SLOW)
        wait_until(lambda: len(receiver.received) == 2, "the second try")
        wait_until(lambda: results(f"sqlite:///{collector.database}") == ["delivered"], "the result")
    assert len({one.id for one in receiver.received}) == 1
    assert receiver.received[0].body == receiver.received[1].body


def results(url: str) -> list[str]:
    return [result for (result,) in run_sql(url, "SELECT result FROM outbox ORDER BY at_ms")]


def test_a_message_survives_a_kill_and_comes_with_the_same_id(tmp_path, receiver, store_url):
    receiver.statuses = [503] * 2
    config = write_config(tmp_path, receiver)
    with run_collector(tmp_path, "--config", config, "--database", store_url, HOOK_SECRET=SECRET) as collector:
        report(collector, make_identity(), SLOW)
        wait_until(lambda: results(store_url) == ["status 503"], "the failed delivery")
        collector.kill()
        run_sql(store_url, "UPDATE outbox SET due_at_ms = :now", now=now_ms())  # what waiting would do
        collector.start()
        wait_until(lambda: results(store_url) == ["delivered"], "the delivery after the restart")
    assert len(receiver.received) == 3
    assert len({one.id for one in receiver.received}) == 1


def test_a_stall_is_told_of_once_while_it_lasts(tmp_path, receiver, store_url):
    config = write_config(tmp_path, receiver, 'events = ["stall_in_progress"]\nmin_stall_ms = 4000\n')
    stall = Stall(9, started_at_ms=now_ms() - 3000, blocked_us=3_000_000, site_id=1, frames=make_site(1).frames)
    with run_collector(tmp_path, "--config", config, "--database", store_url, HOOK_SECRET=SECRET) as collector:
        identity = make_identity()
        with StreamPeer(collector.socket_path) as agent:
            agent.greet(identity)
            agent.send(Define((make_site(1),)), stall, make_report(1))
            agent.wait_for_ack(1)
            assert results(store_url) == []
            agent.send(stall._replace(blocked_us=5_000_000), make_report(2))
            agent.wait_for_ack(2)
            wait_until(lambda: results(store_url) == ["delivered"], "the stall is told of")
            collector.kill()
        collector.start()
        with StreamPeer(collector.socket_path) as agent:
            agent.greet(identity)
            agent.send(stall._replace(blocked_us=9_000_000), make_report(3))
            agent.wait_for_ack(3)
            other = stall._replace(slice_ns=10, blocked_us=7_000_000)
            agent.send(Define((make_site(1),)), other, make_report(4))
            agent.wait_for_ack(4)
            wait_until(lambda: results(store_url) == ["delivered"] * 2, "the other stall is told of")
        (row, _) = sorted(collector.get("/stalls")["stalls"], key=lambda found: found["blocked_ms"], reverse=True)
        assert collector.stop() == 0
    first, second = (one.json["data"] for one in receiver.received)
    assert (first["id"], first["blocked_ms"], second["blocked_ms"]) == (row["id"], 5000.0, 7000.0)
    assert first["call_site"] == row["call_site"] == "shop/orders.py:1:function_1"
    assert first["url"] == f"https://aiocop.example/hotspots/{row['hotspot']}"
    assert (first["operation"], first["pid"], first["host"]) == ("open", 4711, "host-1")


def test_no_more_than_the_rate(tmp_path, receiver):
    config = write_config(tmp_path, receiver, "max_per_minute = 2\n")
    with run_collector(tmp_path, "--config", config, HOOK_SECRET=SECRET) as collector:
        deltas = [SiteDelta(number, 1, 1, 90_000, 90_000) for number in range(1, 8)]
        report(collector, make_identity(), *deltas, sites=range(1, 8))
        url = f"sqlite:///{collector.database}"
        wait_until(lambda: results(url).count("delivered") == 2, "two deliveries")
        assert collector.stop() == 0
        assert sorted(results(url)) == [*[""] * 5, "delivered", "delivered"]
    assert len(receiver.received) == 2


def test_an_exceeded_budget_is_told_once(tmp_path, receiver):
    budget = '[[budgets]]\nservice = "shop"\nenvironment = "test"\nblocked_share = 0.1\n'
    config = write_config(tmp_path, receiver, 'events = ["budget_exceeded"]\n' + budget)
    with run_collector(tmp_path, "--config", config, HOOK_SECRET=SECRET) as collector:
        started_ms = now_ms() - 150_000
        calm, frozen = (make_identity(name)._replace(started_at_ms=started_ms) for name in ("mail", "shop"))
        report(collector, calm, SiteDelta(1, 1, 1, 100_000_000, 90_000_000))
        report(collector, frozen, SiteDelta(1, 1, 1, 60_000_000, 60_000_000))
        for sequence in range(2, 5):
            report(collector, frozen, SLOW, sequence=sequence)
        (told,) = wait_until(lambda: receiver.received, "the message")
        assert collector.stop() == 0
    assert len(receiver.received) == 1
    assert told.json["type"] == "budget_exceeded"
    assert (told.json["data"]["service"], told.json["data"]["budget"]) == ("shop", 0.1)
    assert 0.1 < told.json["data"]["blocked_share"] < 0.5


def test_sentences_for_people():
    hotspot = {
        "id": "9f2c61b0a4d7e835", "service": "shop", "environment": "prod", "operations": ["open", "cpu"],
        "call_site": "shop/a.py:1:<listcomp>", "advice": "Use a thread & smile.", "url": None,
    }  # fmt: skip
    message = {"type": "regressed", "timestamp": "", "data": {"hotspot": hotspot, "release": "2.0"}}
    slack = json.loads(body_of("slack", message))["text"]
    assert slack == (
        "Regressed in shop (prod) in release 2.0: `shop/a.py:1:&lt;listcomp&gt;` (open, cpu). "
        "Use a thread &amp; smile. Hotspot 9f2c61b0a4d7e835."
    )
    discord = json.loads(body_of("discord", message))
    assert discord["allowed_mentions"] == {"parse": []}
    assert "`shop/a.py:1:<listcomp>`" in discord["content"]
    stall = {
        "id": "5e1f", "service": "shop", "environment": "prod", "pid": 17, "host": "web-1", "blocked_ms": 5210.0,
        "call_site": "shop/a.py:1:f", "operation": "open", "url": None,
    }  # fmt: skip
    text = json.loads(body_of("discord", {"type": "stall_in_progress", "data": stall}))["content"]
    assert text == "Frozen now: shop (prod), process 17 on web-1, for 5.2 s at `shop/a.py:1:f` (open). Stall 5e1f."
    budget = {"service": "shop", "environment": "", "blocked_share": 0.123, "budget": 0.05, "window_minutes": 5}
    text = json.loads(body_of("slack", {"type": "budget_exceeded", "data": budget}))["text"]
    assert text == "Budget exceeded: shop was frozen for 12.3% of its time in the last 5 minutes (budget 5.0%)."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webhook = []", r"webhook is not a known key; did you mean webhooks\?"),
        ('[[webhooks]]\nname = "a"\nurll = "https://x.example"', r"webhooks\[0\].url: field required"),
        (
            '[[webhooks]]\nname = "a"\nurl = "https://x.example"\nsecrets = 1',
            r"webhooks\[0\].secrets is not a known key",
        ),
        ('[[webhooks]]\nname = "a"\nurl = "ftp://x.example"', r"webhooks\[0\].url"),
        ("[metrics]\ncall_site = 5", r"metrics.call_site is not a known key; did you mean call_sites\?"),
        ("retentoin = '3d'", r"retentoin is not a known key; did you mean retention\?"),
        ("x = ", "is not TOML"),
        ('[[budgets]]\nservice = "a"\nblocked_share = 2', r"budgets\[0\].blocked_share"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_config(path, {"retention", "http"})
