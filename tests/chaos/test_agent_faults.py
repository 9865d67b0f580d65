"""Agents that are killed, and agents that come all at once."""

import pytest
from tests.chaos.counting_agent import OPENED
from tests.chaos.fleet import expect_every_count_once, run_fleet, stored
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_killed_at_random_moments(collector, tmp_path, extent, chance):
    """What was acknowledged is there; nothing is there twice: never more than was done."""
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.crowd // 2) as agents:
        victims = chance.sample(agents, len(agents) // 2)
        for victim in victims:
            acknowledged_at_least = chance.randrange(200)
            wait_until(lambda a=victim, n=acknowledged_at_least: a.progress()[1] > n, "acknowledgements")
            victim.kill()
        survivors = [agent for agent in agents if agent not in victims]
        expect_every_count_once(collector, survivors)
        counts = stored(collector, agents)
        for victim in victims:
            opened, acknowledged = victim.progress()
            assert acknowledged <= counts[victim.service]["total"], (victim.service, counts[victim.service])
            assert counts[victim.service][OPENED] <= opened, (victim.service, counts[victim.service])


def test_many_at_once(collector, tmp_path, extent):
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.crowd, pause_s=0.1) as agents:
        wait_until(lambda: len(stored(collector, agents)) == extent.crowd, "a count of each")
        expect_every_count_once(collector, agents)
    assert len(collector.get("/agents", since="1h", limit=1000)["agents"]) == extent.crowd
