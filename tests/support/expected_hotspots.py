"""What `GET /hotspots` must answer, computed from the list of calls as the contract says it in words.

Nothing here uses the collector's code: percentiles come from every single duration, not from histograms.
"""

from collections import defaultdict
from dataclasses import dataclass

import pytest
from tests.support.known_activity import DAY_S, Calls, Fleet, hex_id, rfc3339


@dataclass(frozen=True)
class Asked:
    """Filters of a question, in the API's words."""

    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    q: tuple[str, ...] = ()

    def matches(self, fleet: Fleet, calls: Calls) -> bool:
        process, place, status = calls.process, calls.place, fleet.status(calls.hotspot)
        texts = [text.lower() for text in (place.call_site, place.entry_point, place.operation)]
        return (
            (not self.service or process.service in self.service)
            and (not self.environment or process.environment in self.environment)
            and (not self.release or process.release in self.release)
            and (not self.operation or place.operation in self.operation)
            and (not self.reason or place.reason in self.reason)
            and (status in self.status if self.status else status != "ignored")
            and (not self.q or any(wanted.lower() in text for wanted in self.q for text in texts))
        )

    def as_parameters(self) -> list[tuple[str, str]]:
        return [(name, value) for name in self.__dataclass_fields__ for value in getattr(self, name)]


GROUP_KEYS = {
    "call_site": lambda calls: hex_id("hotspot", *calls.hotspot),
    "entry_point": lambda calls: calls.place.entry_point,
    "operation": lambda calls: calls.place.operation,
    "fingerprint": lambda calls: f"{calls.place.fingerprint & (1 << 64) - 1:016x}",
    "line": lambda calls: calls.place.call_site,
    "service": lambda calls: calls.process.service,
    "release": lambda calls: calls.process.release,
}


def expected_rows(fleet: Fleet, asked: Asked, group_by: str, since_s: int, until_s: int) -> dict[str, dict]:
    """The rows of `GET /hotspots` by key (the id, grouping by call site), percentiles from every single duration."""
    matching = [calls for calls in fleet.calls if asked.matches(fleet, calls)]
    in_window = [calls for calls in matching if since_s <= calls.minute_s < until_s]
    first_day_s = since_s // DAY_S * DAY_S
    on_the_days = [calls for calls in matching if first_day_s <= calls.minute_s < -(-until_s // DAY_S) * DAY_S]
    everything_us = sum(sum(calls.durations_us) for calls in in_window)
    key_of = GROUP_KEYS[group_by]
    groups: dict[str, list[Calls]] = defaultdict(list)
    for calls in in_window:
        groups[key_of(calls)].append(calls)
    rows = {}
    for key, members in groups.items():
        rows[key] = _counters(members, everything_us) | {
            "processes": len({calls.process for calls in on_the_days if key_of(calls) == key}),
            **(_of_call_site(fleet, members) if group_by == "call_site" else _of_group(fleet, members, group_by)),
        }
    return rows


def _counters(members: list[Calls], everything_us: int) -> dict:
    durations = sorted(duration for calls in members for duration in calls.durations_us)
    score = max(calls.place.weight for calls in members)
    operations = _blocked_by(members, lambda calls: calls.place.operation)
    return {
        "severity_score": score,
        "severity_level": {50: "high", 10: "medium", 1: "low", 0: "low"}[score],
        "operations": [
            {
                "name": name,
                "count": sum(len(calls.durations_us) for calls in members if calls.place.operation == name),
                "blocked_ms": blocked_us / 1000,
            }
            for name, blocked_us in operations
        ],
        "count": len(durations),
        "slow_count": sum(calls.slow_count for calls in members),
        "blocked_ms": sum(durations) / 1000,
        "share": sum(durations) / everything_us,
        "max_ms": durations[-1] / 1000,
        **{f"p{percent}_ms": durations[int(percent / 100 * (len(durations) - 1))] / 1000 for percent in (50, 95, 99)},
    }


def _of_call_site(fleet: Fleet, members: list[Calls]) -> dict:
    hotspot = members[0].hotspot
    of_all_time = sorted((one for one in fleet.calls if one.hotspot == hotspot), key=lambda one: one.minute_s)
    service, environment, path, function = hotspot
    line = _costliest(members, lambda calls: calls.place.line)
    site = _costliest(members, lambda calls: calls.site)
    place = next(calls.place for calls in members if calls.site == site)
    return {
        "id": hex_id("hotspot", *hotspot),
        "service": service,
        "environment": environment,
        "call_site": path if path.startswith("<") else f"{path}:{line}:{function}",
        "entry_point": place.entry_point,
        "reason": _costliest(members, lambda calls: calls.place.reason),
        "status": fleet.status(hotspot),
        "first_seen": rfc3339(of_all_time[0].minute_s),
        "last_seen": rfc3339(of_all_time[-1].minute_s),
        "first_release": of_all_time[0].process.release,
        "last_release": of_all_time[-1].process.release,
        "advice": place.advice,
    }


def _of_group(fleet: Fleet, members: list[Calls], group_by: str) -> dict:
    def common(value):
        values = {value(calls) for calls in members}
        return values.pop() if len(values) == 1 else None

    if group_by == "release":
        releases = {(calls.process.service, calls.process.environment, calls.process.release) for calls in members}
        history = [
            one
            for one in fleet.calls
            if (one.process.service, one.process.environment, one.process.release) in releases
        ]
    else:
        sites = {calls.site for calls in members}
        history = [one for one in fleet.calls if one.site in sites]
    history.sort(key=lambda one: one.minute_s)
    function = common(lambda calls: (calls.place.path, calls.place.function))
    line = _costliest(members, lambda calls: calls.place.line)
    if function is not None:
        function = function[0] if function[0].startswith("<") else f"{function[0]}:{line}:{function[1]}"
    tells_releases = group_by == "release" or common(lambda calls: calls.process.service) is not None
    return {
        "id": None,
        "service": common(lambda calls: calls.process.service),
        "environment": common(lambda calls: calls.process.environment),
        "call_site": function,
        "entry_point": common(lambda calls: calls.place.entry_point),
        "reason": common(lambda calls: calls.place.reason),
        "status": common(lambda calls: fleet.status(calls.hotspot)),
        "first_seen": rfc3339(history[0].minute_s),
        "last_seen": rfc3339(history[-1].minute_s),
        "first_release": history[0].process.release if tells_releases else None,
        "last_release": history[-1].process.release if tells_releases else None,
        "advice": common(lambda calls: calls.place.advice),
    }


def _blocked_by(members: list[Calls], value) -> list[tuple]:
    blocked_us: dict = defaultdict(int)
    for calls in members:
        blocked_us[value(calls)] += sum(calls.durations_us)
    return sorted(blocked_us.items(), key=lambda item: -item[1])


def _costliest(members: list[Calls], value):
    return _blocked_by(members, value)[0][0]


def assert_same(row: dict, expected: dict, question: str) -> None:
    """That a row of an answer is the expected one; `question` is shown where it is not."""
    row = {name: value for name, value in row.items() if name != "key"}
    exact = {name for name in expected if not name.endswith("_ms") and name not in ("share", "operations")}
    assert {name: row[name] for name in exact} == {name: expected[name] for name in exact}, question
    assert row.keys() == expected.keys(), question
    for name in ("blocked_ms", "max_ms"):
        assert row[name] == pytest.approx(expected[name], abs=0.000_6), question
    assert row["share"] == pytest.approx(expected["share"], abs=0.000_051), question
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        assert row[name] == pytest.approx(expected[name], rel=0.10, abs=0.1), question
    assert [(one["name"], one["count"]) for one in row["operations"]] == [
        (one["name"], one["count"]) for one in expected["operations"]
    ], question
    assert [one["blocked_ms"] for one in row["operations"]] == pytest.approx(
        [one["blocked_ms"] for one in expected["operations"]], abs=0.000_6
    ), question
