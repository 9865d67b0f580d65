"""The whole API driven from its own OpenAPI document: no input makes the collector fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, run_collector

from aiocop_wire import Define, SiteDelta

EXAMPLES = 15
OPERATIONS = (
    "GET /healthz", "GET /readyz", "GET /metrics", "GET /hotspots", "GET /hotspots/{hotspot_id}",
    "GET /hotspots/{hotspot_id}/timeline", "PATCH /hotspots/{hotspot_id}", "GET /diff", "GET /services",
    "GET /operations", "GET /agents", "GET /stalls", "PATCH /services/{name}", "PATCH /agents/{agent_id}",
)  # fmt: skip


@pytest.fixture(scope="module")
def described_api(tmp_path_factory):
    with run_collector(tmp_path_factory.mktemp("schemathesis")) as collector:
        with StreamPeer(collector.socket_path) as agent:
            agent.greet(make_identity())
            agent.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 1, 1, 90_000, 90_000)))
            agent.wait_for_ack(1)
        yield schemathesis.openapi.from_url(f"{collector.url}/openapi.json")


def test_every_operation_is_driven(described_api):
    assert {result.ok().label for result in described_api.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_input_is_a_server_error(described_api, label):
    (operation,) = [found for result in described_api.get_all_operations() if (found := result.ok()).label == label]
    statuses = set()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def drive(case):
        response = case.call()
        statuses.add(response.status_code)
        assert response.status_code < 500, response.text

    drive()
    assert statuses
