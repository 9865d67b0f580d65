"""Releases and times compared, against an independent computation from the activity itself."""

from collections import defaultdict

import pytest
from tests.support.api_client import serving
from tests.support.fill_store import fill
from tests.support.known_activity import NOW_S, PLACES, Calls, Fleet, Process, hex_id

MINUTE_S = NOW_S // 60 * 60
ORDERS, STOCK, RENDER, FILES = PLACES[0], PLACES[4], PLACES[8], PLACES[5]


def activity() -> Fleet:
    """Two processes of 1.0 for two hours, one of 2.0 for one hour."""
    old = [Process("shop", "prod", "1.0", pid) for pid in (1, 2)]
    new = Process("shop", "prod", "2.0", 3)
    calls = []
    for process, start_s, hours, costs in (
        (old[0], MINUTE_S - 10 * 3600, 2, {ORDERS: 400_000, STOCK: 600_000, FILES: 1_000_000}),
        (old[1], MINUTE_S - 10 * 3600, 2, {ORDERS: 400_000, FILES: 1_000_000}),
        (new, MINUTE_S - 3 * 3600, 1, {ORDERS: 1_000_000, RENDER: 700_000, FILES: 500_000}),
    ):
        for at_s in (start_s, start_s + hours * 3600):
            for place, blocked_us in costs.items():
                calls.append(Calls(process, place, at_s, (blocked_us,), 1))
    return Fleet(tuple(calls))


@pytest.fixture
async def client(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/collector.db"
    await fill(url, activity())
    async with serving(url) as client:
        yield client


def expected_rates(release: str, hours: float) -> dict[str, float]:
    """Blocked milliseconds per process-hour by hotspot."""
    totals = defaultdict(float)
    for one in activity().calls:
        if one.process.release == release:
            totals[hex_id("hotspot", *one.hotspot)] += sum(one.durations_us) / 1000
    return {hotspot: blocked_ms / hours for hotspot, blocked_ms in totals.items()}


def of(place) -> str:
    return hex_id("hotspot", "shop", "prod", place.path, place.function)


async def diff(client, **parameters) -> dict:
    answer = await client.get("/diff", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_releases_are_compared_per_hour_of_a_process(client):
    found = await diff(client, base="1.0", head="2.0", service="shop")
    before, after = expected_rates("1.0", 4), expected_rates("2.0", 1)
    assert (found["verdict"], found["by"]) == ("worse", "release")
    assert {change: [row["id"] for row in found[change]] for change in ("new", "gone", "worse", "better")} == {
        "new": [of(RENDER)],
        "gone": [of(STOCK)],
        "worse": [of(ORDERS)],
        "better": [],
    }
    assert found["counts"]["same"] == 1
    for change in ("new", "gone", "worse"):
        for row in found[change]:
            assert row["base"]["blocked_ms_per_hour"] == pytest.approx(before.get(row["id"], 0), rel=0.001)
            assert row["head"]["blocked_ms_per_hour"] == pytest.approx(after.get(row["id"], 0), rel=0.001)
    assert found["worse"][0]["ratio"] == pytest.approx(after[of(ORDERS)] / before[of(ORDERS)], rel=0.001)
    (seen,) = found["base"]["observed"]
    assert (seen["processes"], seen["slices"]) == (2, 198)
    assert seen["process_hours"] == pytest.approx(4, abs=0.001)


async def test_the_other_way_round_everything_changes_sides(client):
    there = await diff(client, base="1.0", head="2.0", service="shop")
    back = await diff(client, base="2.0", head="1.0", service="shop")
    for one, other in (("new", "gone"), ("gone", "new"), ("worse", "better"), ("better", "worse")):
        assert [row["id"] for row in there[one]] == [row["id"] for row in back[other]]
    assert there["counts"]["same"] == back["counts"]["same"]


async def test_thresholds_decide_what_a_change_is(client):
    lenient = await diff(client, base="1.0", head="2.0", service="shop", min_ms_per_hour=3_000_000)
    assert (lenient["verdict"], lenient["counts"]["same"]) == ("same", 4)
    unsure = await diff(client, base="1.0", head="2.0", service="shop", min_minutes=90)
    assert (unsure["verdict"], unsure["new"], unsure["counts"]["same"]) == ("unknown", [], 0)
    strict = await diff(client, base="1.0", head="2.0", service="shop", worse_ratio=1, min_ms_per_hour=0, limit=1)
    assert len(strict["worse"]) == 1


async def test_slices_are_compared_where_they_are_known(client):
    found = await diff(client, base="1.0", head="2.0", service="shop", per="slice")
    row = next(row for row in found["worse"] if row["id"] == of(ORDERS))
    assert row["base"]["blocked_ms_per_million_slices"] == pytest.approx(1600 * 1e6 / 198, rel=0.001)
    assert row["head"]["blocked_ms_per_million_slices"] == pytest.approx(2000 * 1e6 / 99, rel=0.001)


async def test_times_are_compared(client):
    found = await diff(client, base="12h/7h", head="4h/1m", service="shop")
    assert (found["verdict"], found["by"]) == ("worse", "time")
    assert [row["id"] for row in found["gone"]] == [of(STOCK)]
    nothing = await diff(client, base="12h/7h", head="30m/1m")
    assert (nothing["verdict"], nothing["counts"]["unknown"]) == ("unknown", 3)


@pytest.mark.parametrize(
    ("parameters", "parameter", "text"),
    [
        ({"base": "1.0", "head": "2.0"}, "service", "say which"),
        ({"base": "1.0", "head": "2.O", "service": "shop"}, "head", "the latest are 2.0, 1.0"),
        ({"base": "0.9", "head": "2.0", "service": "shop"}, "base", "never seen"),
        ({"base": "2.0", "head": "2.0", "service": "shop"}, "head", "base too"),
        ({"base": "2h/1h", "head": "2.0", "service": "shop"}, "head", "both"),
        ({"base": "1h/2h", "head": "2h/1h"}, "base", "not before"),
        ({"base": "2h/1h", "head": "1h/1m", "since": "1h"}, "since", "say the time already"),
        ({"head": "2.0"}, "base", "required"),
        ({"base": "1.0", "head": "2.0", "worse_ratio": "nan"}, "worse_ratio", ""),
    ],
)
async def test_what_cannot_be_compared_is_named(client, parameters, parameter, text):
    answer = await client.get("/diff", params=parameters)
    assert answer.status_code == 422, answer.text
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]
    assert text in answer.json()["detail"]
