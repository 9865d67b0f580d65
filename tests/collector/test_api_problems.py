"""What cannot be answered is refused with a document that names the parameter and what was probably meant."""

import base64
import json

import pytest

HOTSPOT = "0123456789abcdef"


def assert_problem(response, status, parameter, *texts):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    if parameter is not None:
        assert [error["parameter"] for error in document["errors"]] == [parameter]
        assert parameter in document["detail"]
    for text in texts:
        assert text in document["detail"]


@pytest.mark.parametrize(
    ("query", "parameter", "text"),
    [
        ("sinc=1h", "sinc", "did you mean since?"),
        ("servcie=shop", "servcie", "did you mean service?"),
        ("zzzzzz=1", "zzzzzz", "not a known parameter"),
        ("sort=blocked_tme", "sort", "did you mean blocked_time?"),
        ("sort=LAST_SEEN", "sort", "did you mean last_seen?"),
        ("group_by=callsite", "group_by", "did you mean call_site?"),
        ("order=down", "order", "desc, asc"),
        ("status=opne", "status", "did you mean open?"),
        ("status=open&status=closed", "status", "'closed'"),
        ("reason=io", "reason", "io_blocking"),
        ("limit=0", "limit", "greater than or equal to 1"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("limit=ten", "limit", "integer"),
        ("since=tomorrow", "since", "expected an age such as 15m"),
        ("since=1h&until=2h", "since", "not before until"),
        ("until=soon", "until", "expected an age"),
        ("service=%00", "service", "NUL"),
        ("q=" + "x" * 1025, "q", "1024"),
        ("&".join(["service=x"] * 101), "service", "100"),
        ("cursor=", "cursor", "not made by this collector"),
        ("cursor=%F0%9F%98%80", "cursor", "not made by this collector"),
        ("cursor=" + base64.urlsafe_b64encode(b"[" * 9000).decode(), "cursor", "not made by this collector"),
        ("cursor=" + base64.urlsafe_b64encode(b'[1,"x"]').decode(), "cursor", "other parameters"),
    ],
)
async def test_an_unknown_parameter_or_value_is_named(api, query, parameter, text):
    assert_problem(await api.get(f"/hotspots?{query}"), 422, parameter, text)


@pytest.mark.parametrize(
    "path",
    [
        "/hotspots",
        f"/hotspots/{HOTSPOT}",
        f"/hotspots/{HOTSPOT}/timeline",
        "/services",
        "/operations",
        "/agents",
    ],
)
async def test_no_endpoint_ignores_a_parameter(api, path):
    assert_problem(await api.get(path, params={"servcies": "x"}), 422, "servcies")


async def test_a_cursor_serves_only_its_own_question(api):
    cursor = (await api.get("/hotspots", params={"limit": 1})).json()["next_cursor"]
    assert (await api.get("/hotspots", params={"limit": 3, "cursor": cursor})).status_code == 200
    for other in ({"service": "shop"}, {"sort": "max"}, {"order": "asc"}, {"group_by": "line"}, {"since": "7d"}):
        response = await api.get("/hotspots", params={"limit": 1, "cursor": cursor, **other})
        assert_problem(response, 422, "cursor", "other parameters")


async def test_a_forged_cursor_is_refused_before_the_database_sees_it(api):
    genuine = (await api.get("/hotspots", params={"limit": 1})).json()["next_cursor"]
    items = json.loads(base64.urlsafe_b64decode(genuine + "=" * (-len(genuine) % 4)))
    for position in range(2, len(items)):
        for value in ("text", None, 1.5, 1 << 63, -(1 << 70), True, [], {"a": 1}, float("nan")):
            forged = [*items[:position], value, *items[position + 1 :]]
            text = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode()
            assert_problem(await api.get("/hotspots", params={"limit": 1, "cursor": text}), 422, "cursor")
    for cut in range(len(genuine)):
        assert_problem(await api.get("/hotspots", params={"limit": 1, "cursor": genuine[:cut]}), 422, "cursor")


@pytest.mark.parametrize("hotspot_id", [HOTSPOT, "zz", "-123456789abcdef", "0x23456789abcdef", "🙂", "%00"])
@pytest.mark.parametrize("path", ["/hotspots/{}", "/hotspots/{}/timeline"])
async def test_an_unknown_hotspot_is_not_found(api, path, hotspot_id):
    assert_problem(await api.get(path.format(hotspot_id)), 404, None, "There is no hotspot")


async def test_what_is_not_there_is_a_problem_too(api):
    assert_problem(await api.get("/hotspot"), 404, None, "/openapi.json")
    assert_problem(await api.post("/hotspots"), 405, None, "POST")


@pytest.mark.parametrize(
    ("body", "parameter", "text"),
    [
        ({"statu": "open"}, "statu", "did you mean status?"),
        ({"status": "regressed"}, "status", "open, resolved, ignored"),
        ({"status": 1}, "status", "1"),
        ({"note": 5}, "note", "string"),
        ({"note": "x" * 10_001}, "note", "10000"),
        ({"note": "a\x00b"}, "note", "NUL"),
        ([], "body", "dictionary"),
    ],
)
async def test_a_decision_that_makes_no_sense_is_named(api, body, parameter, text):
    assert_problem(await api.patch(f"/hotspots/{HOTSPOT}", json=body), 422, parameter, text)


async def test_a_body_that_is_not_json_is_refused(api):
    response = await api.patch(f"/hotspots/{HOTSPOT}", content=b"{", headers={"Content-Type": "application/json"})
    assert_problem(response, 422, None, "not JSON")


async def test_openapi_describes_every_parameter_and_problem(api):
    document = (await api.get("/openapi.json")).json()
    parameters = {item["name"]: item for item in document["paths"]["/hotspots"]["get"]["parameters"]}
    assert list(parameters) == [
        "since", "until", "service", "environment", "release", "operation", "reason", "status", "q", "group_by", "sort",
        "order", "limit", "cursor",
    ]  # fmt: skip
    assert parameters["limit"]["schema"]["maximum"] == 1000
    example = document["components"]["schemas"]["HotspotsAnswer"]["example"]
    assert example["hotspots"][0]["call_site"] == "shop/orders.py:42:create_order"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "application/problem+json" in operation["responses"]["422"]["content"], (method, path)
            assert operation["summary"]
            assert operation["description"]
