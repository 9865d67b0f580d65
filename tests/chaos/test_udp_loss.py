"""Datagrams that a firewall drops are counted as lost: received + lost = sent, exactly."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.chaos.fleet import finish, run_fleet, stored
from tests.support.collector import run_collector
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@contextmanager
def dropping(port: int, probability: float) -> Iterator[list[str]]:
    """A rule that drops datagrams on their way in, where the sender does not notice."""
    rule = ["INPUT", "-p", "udp", "--dport", str(port), "-m", "statistic", "--mode", "random"]
    rule += ["--probability", str(probability), "-j", "DROP"]
    iptables = shutil.which("iptables") or "/usr/sbin/iptables"
    if os.geteuid() != 0 or not os.path.exists(iptables):
        pytest.skip("NOT TESTED: dropped datagrams need root and iptables")
    added = subprocess.run([iptables, "-w", "-I", *rule], capture_output=True, text=True)
    if added.returncode != 0:
        pytest.skip(f"NOT TESTED: dropped datagrams: {added.stderr}")
    try:
        yield [iptables, "-w", "-n", "-v", "-x", "-L", "INPUT"]
    finally:
        subprocess.run([iptables, "-w", "-D", *rule], check=True)


def dropped_by(listing: list[str], port: int) -> int:
    said = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    (line,) = [line for line in said.splitlines() if re.search(rf"udp dpt:{port}\b", line)]
    return int(line.split()[0])


def test_received_and_lost_is_sent(tmp_path, extent):
    with run_collector(tmp_path, udp=True) as collector:
        host, port = collector.udp
        with (
            dropping(port, 0.2) as listing,
            run_fleet(tmp_path, f"udp://{host}:{port}", extent.agents) as agents,
        ):
            # So many that at least one of them was lost.
            wait_until(lambda: dropped_by(listing, port) >= 2 * len(agents), "drops")
            outcomes = finish(agents)
            dropped = dropped_by(listing, port)
        shown = {agent["service"]: agent for agent in collector.get("/agents", since="1h")["agents"]}
        counts = stored(collector, agents)
        farewells_sent = 3 * len(agents)
        sent = sum(outcome["reports_sent"] for outcome in outcomes.values())
        arrived = collector.counters()["reports_udp"]
        assert sent + farewells_sent == arrived + dropped
        for service, outcome in outcomes.items():
            assert outcome["flushed"], outcome
            row = shown[service]
            assert row["reports_duplicated"] == 0, row
            heard_of = row["reports_received"] + row["reports_lost"]
            if row["tail"] == "complete":
                assert heard_of == outcome["reports_sent"], (row, outcome)
            else:  # all three farewells were dropped, one in 125 times: then up to the last that was received
                assert heard_of <= outcome["reports_sent"], (row, outcome)
            if row["reports_lost"] == 0:
                assert counts[service]["total"] == outcome["recorded"], (row, outcome)
            assert counts[service]["total"] <= outcome["recorded"], (row, outcome)
        assert sum(row["reports_lost"] for row in shown.values()) > 0
