"""Rules: who owns which code, what is ignored, how severe it is; read by real collectors, and undone again."""

import json
from pathlib import Path

import pytest
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until
from tests.support.webhook_receiver import run_webhook_receiver

from aiocop_collector.errors import SettingsError
from aiocop_collector.rules_file import CallSite, read_rules
from aiocop_wire import Define, SiteDelta


def write(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)
    return path


def report(collector, identity, *numbers: int, sequence: int = 1) -> None:
    """One slow call at each of the sites `shop/orders.py:N:function_N`."""
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(identity)
        deltas = [SiteDelta(number, 1, 1, 90_000, 90_000) for number in numbers]
        agent.send(Define(tuple(make_site(number) for number in numbers)), make_report(sequence, *deltas))
        agent.wait_for_ack(sequence)


def hotspot(collector, number: int) -> dict:
    rows = collector.get("/hotspots", status=["open", "ignored", "regressed", "resolved"])["hotspots"]
    row = next(row for row in rows if row["call_site"].endswith(f":function_{number}"))
    return collector.get(f"/hotspots/{row['id']}")


def test_the_last_rule_that_speaks_of_a_matter_decides_it(tmp_path):
    rules = read_rules(
        write(
            tmp_path,
            """
            [[rules]]
            path = "shop/*"
            owner = "shop"
            ignore = true
            [[rules]]
            path = "shop/pay/*"
            owner = "payments"
            [[rules]]
            path = "shop/pay/*"
            function = "charge*"
            ignore = false
            [[rules]]
            operation = "os.*"
            severity = "low"
            [[rules]]
            operation = "os.stat"
            service = "shop"
            environment = ""
            severity = 77
            """,
        )
    )
    assert rules.owner_of(CallSite("shop/a/b.py", "f", "shop", "prod")) == "shop"
    assert rules.owner_of(CallSite("shop/pay/b.py", "f", "shop", "prod")) == "payments"
    assert rules.owner_of(CallSite("mail/shop/b.py", "f", "shop", "prod")) == ""
    assert rules.ignores(CallSite("shop/pay/b.py", "f", "shop", "prod"))
    assert not rules.ignores(CallSite("shop/pay/b.py", "charge_card", "shop", "prod"))
    assert rules.severity_of(CallSite("x.py", "f", "shop", "prod"), "os.stat") == 1
    assert rules.severity_of(CallSite("x.py", "f", "shop", ""), "os.stat") == 77
    assert rules.severity_of(CallSite("x.py", "f", "shop", ""), "open") is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[rules]\n", "is not TOML"),
        ('[[rules]]\npath = "a"\n', r"rules\[0\]: a rule says who"),
        (
            '[[rules]]\nowner = "a"\n[[rules]]\nownr = "b"\n',
            r"rules\[1\]\.ownr is not a known key; did you mean owner\?",
        ),
        ('[[rules]]\noperation = "open"\nignore = true\n', r"rules\[0\]: an operation goes with a severity only"),
        ('[[rules]]\nseverity = "grave"\n', r"rules\[0\]\.severity: "),
        ("[[rules]]\nseverity = 101\n", r"rules\[0\]\.severity: "),
        ('[[rule]]\nowner = "a"\n', r"rule\[0\] is not a known key|rule is not a known key; did you mean rules\?"),
    ],
)
def test_what_is_wrong_is_said_with_the_number_of_the_rule(tmp_path, text, error):
    with pytest.raises(SettingsError, match=error):
        read_rules(write(tmp_path, text))


def test_a_file_that_is_not_there_keeps_the_collector_from_starting(tmp_path):
    wrong = pytest.raises(AssertionError, match=r"the rules file /nowhere/rules\.toml cannot be read: No such file")
    with wrong, run_collector(tmp_path, "--rules", "/nowhere/rules.toml"):
        pass


def test_rules_reach_what_is_new_and_what_is_stored_and_are_taken_back(tmp_path, store_url):
    rules = write(tmp_path, '[[rules]]\nfunction = "function_1"\nowner = "payments"\n')
    agent = make_identity()
    with run_collector(tmp_path, "--rules", str(rules), "--database", store_url) as collector:
        report(collector, agent, 1, 2)
        assert [hotspot(collector, number)["owner"] for number in (1, 2)] == ["payments", ""]
        before = hotspot(collector, 2)
        write(
            tmp_path,
            '[[rules]]\nfunction = "function_[23]"\nignore = true\n[[rules]]\noperation = "open"\nseverity = 99\n',
        )
        wait_until(lambda: hotspot(collector, 2)["status"] == "ignored", "the changed rules")
        wait_until(lambda: hotspot(collector, 1)["severity_score"] == 99, "the rest of them")
        changed = hotspot(collector, 2)
        assert changed["history"][0]["who"] == "rules"
        assert changed["history"][0]["changes"] == {"status": ["open", "ignored"]}
        assert (hotspot(collector, 1)["owner"], hotspot(collector, 1)["status"]) == ("", "open")
        report(collector, agent, 1, 2, 3, sequence=2)  # defined anew, by an agent that says its own weights
        assert [hotspot(collector, number)["status"] for number in (1, 2, 3)] == ["open", "ignored", "ignored"]
        assert hotspot(collector, 3)["severity_score"] == 99
        write(tmp_path, "[[rules]\nbroken")
        wait_until(lambda: "is not TOML" in collector.log.read_text(), "the complaint")
        assert hotspot(collector, 2)["status"] == "ignored"
        write(tmp_path, "")
        wait_until(lambda: hotspot(collector, 3)["status"] == "open", "the end of the rules")
        after = hotspot(collector, 2)
        assert [after[field] for field in ("status", "severity_score", "owner")] == [
            before[field] for field in ("status", "severity_score", "owner")
        ]


def test_people_win_over_rules(tmp_path, store_url):
    rules = write(tmp_path, '[[rules]]\npath = "shop/*"\nignore = true\nowner = "shop"\n')
    with run_collector(tmp_path, "--rules", str(rules), "--database", store_url) as collector:
        report(collector, make_identity(), 1, 2)
        first, second = hotspot(collector, 1), hotspot(collector, 2)
        assert (first["status"], second["status"]) == ("ignored", "ignored")
        collector.http.patch(f"/hotspots/{first['id']}", json={"status": "open", "owner": "ada"})
        collector.http.patch(f"/hotspots/{second['id']}", json={"status": "ignored", "note": "known"})
        report(collector, make_identity(), 1, 2)
        assert (hotspot(collector, 1)["status"], hotspot(collector, 1)["owner"]) == ("open", "ada")
        collector.stop()
        write(tmp_path, "")
        collector.start()
        wait_until(lambda: hotspot(collector, 2)["owner"] == "", "the end of the rules")
        assert [hotspot(collector, number)["status"] for number in (1, 2)] == ["open", "ignored"]


def test_nobody_is_told_of_what_a_rule_ignores_and_the_owner_is_named(tmp_path):
    rules = write(
        tmp_path,
        '[[rules]]\nfunction = "function_1"\nignore = true\n[[rules]]\npath = "shop/*"\nowner = "payments"\n',
    )
    with run_webhook_receiver() as receiver:
        config = tmp_path / "collector.toml"
        config.write_text(f'[[webhooks]]\nname = "ops"\nurl = "{receiver.url}"\n')
        with run_collector(tmp_path, "--config", str(config), "--rules", str(rules)) as collector:
            report(collector, make_identity(), 1)
            report(collector, make_identity(), 2)
            wait_until(lambda: receiver.received, "the message")
            assert collector.stop() == 0
        (message,) = [json.loads(one.body) for one in receiver.received]
        assert message["data"]["hotspot"]["call_site"].endswith(":function_2")
        assert message["data"]["hotspot"]["owner"] == "payments"
