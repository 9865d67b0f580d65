"""Every grouping, sort and filter of `GET /hotspots`, against answers worked out from the activity itself."""

from itertools import cycle

import pytest
from tests.support.expected_hotspots import GROUP_KEYS, Asked, assert_same, expected_rows
from tests.support.known_activity import rfc3339

SORTS = {
    "blocked_time": "blocked_ms",
    "count": "count",
    "slow_count": "slow_count",
    "max": "max_ms",
    "p99": "p99_ms",
    "last_seen": "last_seen",
}

# since, the window it becomes at 2026-01-31T12:34:56Z in Unix seconds, and the buckets read.
WINDOWS = {
    "1h": (1_769_859_240, 1_769_862_900, 60),
    "24h": (1_769_774_400, 1_769_864_400, 3600),
    "30d": (1_767_225_600, 1_769_904_000, 86_400),
}

FILTERS = {
    "nothing": Asked(),
    "service": Asked(service=("shop",)),
    "two services": Asked(service=("shop", "billing")),
    "environment": Asked(environment=("staging",)),
    "no environment": Asked(environment=("",), status=("open", "ignored")),
    "release": Asked(release=("1.5.2",)),
    "two releases": Asked(release=("1.4.0", "8")),
    "operation": Asked(operation=("open", "cpu")),
    "reason": Asked(reason=("cpu_blocking",)),
    "ignored": Asked(status=("ignored",)),
    "all statuses": Asked(status=("open", "regressed", "resolved", "ignored")),
    "q of a path": Asked(q=("COMMON/",)),
    "q of an operation": Asked(q=("getaddrinfo",)),
    "q with wildcards": Asked(q=("100%_of",), status=("ignored",)),
    "two q": Asked(q=("Order.total", "<gc>")),
    "several": Asked(service=("shop",), environment=("prod",), release=("1.4.0", "1.5.2"), operation=("open", "cpu")),
    "nobody": Asked(service=("nobody",)),
}


def identity(row: dict) -> str:
    return row["id"] or row["key"]


@pytest.mark.parametrize("group_by", GROUP_KEYS)
async def test_every_row_is_what_the_activity_says(api, fleet, group_by):
    for filters, asked in FILTERS.items():
        # Every sort once, each over another window and in another order than the one before.
        windows, orders = cycle(WINDOWS.items()), cycle(["desc", "asc", "asc", "desc"])
        for sort, (since, window), order in zip(SORTS, windows, orders, strict=False):
            since_s, until_s, resolution_s = window
            expected = expected_rows(fleet, asked, group_by, since_s, until_s)
            parameters = {"since": since, "group_by": group_by, "sort": sort, "order": order, "limit": "1000"}
            response = await api.get("/hotspots", params=[*asked.as_parameters(), *parameters.items()])
            assert response.status_code == 200, response.text
            answer = response.json()
            question = f"{filters}: {response.url}"
            assert answer["window"] == {
                "since": rfc3339(since_s),
                "until": rfc3339(until_s),
                "resolution_s": resolution_s,
            }
            assert answer["group_by"] == group_by
            assert answer["total"] == len(expected), question
            assert answer["next_cursor"] is None
            assert sorted(identity(row) for row in answer["hotspots"]) == sorted(expected), question
            for row in answer["hotspots"]:
                assert_same(row, expected[identity(row)], question)
            values = [row[SORTS[sort]] for row in answer["hotspots"]]
            assert values == sorted(values, reverse=order == "desc"), question


def test_the_activity_is_worth_asking_about(fleet):
    for name, asked in FILTERS.items():
        rows = [expected_rows(fleet, asked, "call_site", since_s, until_s) for since_s, until_s, _ in WINDOWS.values()]
        assert any(rows) == (name != "nobody"), name
    everything = expected_rows(fleet, Asked(), "call_site", *WINDOWS["30d"][:2])
    assert len(everything) >= 8
    assert any(len(row["operations"]) > 1 for row in everything.values())
    assert {row["status"] for row in everything.values()} == {"open", "regressed", "resolved"}


@pytest.mark.parametrize("group_by", GROUP_KEYS)
async def test_pages_put_together_are_the_whole_list(api, group_by):
    for sort in SORTS:
        for order in ("desc", "asc"):
            parameters = {"group_by": group_by, "sort": sort, "order": order, "since": "30d"}
            whole = (await api.get("/hotspots", params={**parameters, "limit": 1000})).json()
            rows, cursor = [], {}
            while cursor is not None:
                page = (await api.get("/hotspots", params={**parameters, "limit": 2, **cursor})).json()
                assert page["total"] == whole["total"]
                assert page["window"] == whole["window"]
                assert len(page["hotspots"]) <= 2
                rows += page["hotspots"]
                cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
            assert rows == whole["hotspots"], parameters


async def test_the_line_shown_is_the_costliest_of_the_window(api, fleet):
    lines = set()
    for since_s, until_s, _ in WINDOWS.values():
        for row in expected_rows(fleet, Asked(q=("create_order",)), "call_site", since_s, until_s).values():
            lines.add(row["call_site"])
    assert lines == {"shop/orders.py:42:create_order", "shop/orders.py:47:create_order"}, "the activity shows no change"


async def test_the_default_is_the_last_day_by_blocked_time(api):
    default = (await api.get("/hotspots")).json()
    spelled_out = (
        await api.get(
            "/hotspots",
            params={"since": "24h", "group_by": "call_site", "sort": "blocked_time", "order": "desc", "limit": 50},
        )
    ).json()
    assert default == spelled_out
    assert default["window"] == {"since": "2026-01-30T12:00:00Z", "until": "2026-01-31T13:00:00Z", "resolution_s": 3600}
    assert sum(row["share"] for row in default["hotspots"]) == pytest.approx(1, abs=0.01)
    assert set(default["hotspots"][0]) == {
        "id", "service", "environment", "call_site", "entry_point", "reason", "severity_level", "severity_score",
        "status", "operations", "count", "slow_count", "blocked_ms", "share", "max_ms", "p50_ms", "p95_ms", "p99_ms",
        "processes", "first_seen", "last_seen", "first_release", "last_release", "advice",
    }  # fmt: skip
