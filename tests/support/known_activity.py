"""A fleet's activity as a plain list of calls: what a store is filled with, and what answers are worked out from."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache, cached_property

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


@dataclass(frozen=True)
class Place:
    """A line that blocks, and how."""

    path: str
    function: str
    line: int
    operation: str
    entry: tuple[str, int, str]
    reason: str = "io_blocking"
    weight: int = 10
    advice: str = ""

    @cached_property
    def call_site(self) -> str:
        return self.path if self.path.startswith("<") else f"{self.path}:{self.line}:{self.function}"

    @cached_property
    def entry_point(self) -> str:
        path, line, function = self.entry
        return path if path.startswith("<") else f"{path}:{line}:{function}"

    @cached_property
    def fingerprint(self) -> int:
        """The same for the same frames, whatever the service and the operation."""
        return random.Random(repr((self.path, self.function, self.line, self.entry))).getrandbits(64) - (1 << 63)


@dataclass(frozen=True)
class Process:
    """Who reports."""

    service: str
    environment: str
    release: str
    pid: int

    @cached_property
    def agent_id(self) -> str:
        return random.Random(repr(self)).getrandbits(128).to_bytes(16, "big").hex()


@dataclass(frozen=True)
class Calls:
    """What one process did at one place in one minute."""

    process: Process
    place: Place
    minute_s: int
    durations_us: tuple[int, ...]
    slow_count: int

    @cached_property
    def hotspot(self) -> tuple[str, str, str, str]:
        return (self.process.service, self.process.environment, self.place.path, self.place.function)

    @cached_property
    def site(self) -> tuple[str, str, str, int]:
        return (self.process.service, self.process.environment, self.place.operation, self.place.fingerprint)


@dataclass(frozen=True)
class Fleet:
    """All activity, and what people have decided about hotspots."""

    calls: tuple[Calls, ...]
    statuses: dict[tuple[str, str, str, str], str] = field(default_factory=dict)

    def status(self, hotspot: tuple[str, str, str, str]) -> str:
        return self.statuses.get(hotspot, "open")


@cache
def id_of(*parts: object) -> int:
    """A made-up signed 64-bit id."""
    return random.Random(repr(parts)).getrandbits(64) - (1 << 63)


def hex_id(*parts: object) -> str:
    return f"{id_of(*parts) & (1 << 64) - 1:016x}"


@cache
def rfc3339(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat().replace("+00:00", "Z")


NOW_S = 1_769_862_896
"""2026-01-31T12:34:56Z"""

_RESOLVE = ("socket.py", 836, "create_connection")
PLACES = (
    Place("shop/orders.py", "create_order", 42, "socket.getaddrinfo", _RESOLVE, weight=50, advice="Use httpx."),
    Place("shop/orders.py", "create_order", 42, "socket.socket.connect", _RESOLVE, weight=50, advice="Use httpx."),
    Place("shop/orders.py", "create_order", 47, "open", ("shop/orders.py", 47, "create_order"), advice="Use a thread."),
    Place("shop/orders.py", "Order.total", 99, "cpu", ("shop/orders.py", 99, "Order.total"), "cpu_blocking", 10),
    Place(
        "shop/stock.py", "count_100%_of_it", 7, "sqlite3.connect", ("shop/stock.py", 7, "count_100%_of_it"), weight=1
    ),
    Place("common/files.py", "read", 11, "open", ("pathlib.py", 1013, "Path.open"), advice="Use a thread."),
    Place("common/files.py", "read", 12, "cpu", ("common/files.py", 12, "read"), "cpu_blocking", 10, "Use a pool."),
    Place("billing/invoice.py", "render", 5, "cpu", ("billing/invoice.py", 5, "render"), "cpu_blocking", 10),
    Place("billing/invoice.py", "render", 31, "time.sleep", ("billing/invoice.py", 31, "render"), weight=50),
    Place("<gc>", "", 0, "gc", ("<gc>", 0, ""), "cpu_blocking", 0),
)
_HOMES = {"shop": ("shop/", "common/", "<gc>"), "billing": ("billing/", "common/", "<gc>"), "mail": ("common/",)}


def make_fleet(seed: int = 1, groups_of_calls: int = 400) -> Fleet:
    """Three services in several environments and releases, over six weeks, most of it recent."""
    rng = random.Random(seed)
    processes = [
        Process(service, environment, release, pid)
        for pid, (service, environment, release) in enumerate(
            [
                ("shop", "prod", "1.4.0"),
                ("shop", "prod", "1.4.0"),
                ("shop", "prod", "1.5.2"),
                ("shop", "staging", "1.5.2"),
                ("shop", "staging", "1.6.0"),
                ("billing", "prod", "7"),
                ("billing", "prod", "8"),
                ("mail", "", ""),
            ],
            start=100,
        )
    ]
    minutes = range(NOW_S // MINUTE_S * MINUTE_S - 42 * DAY_S, NOW_S, MINUTE_S)
    # Every group of calls is in a minute of its own, so that first and last are never two.
    recent = rng.sample(minutes[-60:], 40) + rng.sample(minutes[-1440:-60], groups_of_calls // 3)
    old = rng.sample(minutes[:-1440], groups_of_calls - len(recent))
    calls = []
    for minute_s in recent + old:
        process = rng.choice(processes)
        place = rng.choice([place for place in PLACES if place.path.startswith(_HOMES[process.service])])
        durations = tuple(min(int(rng.lognormvariate(9, 2)) + 1, 30_000_000) for _ in range(rng.choice((1, 3, 20, 60))))
        calls.append(Calls(process, place, minute_s, durations, rng.randint(0, len(durations))))
    statuses = {
        ("shop", "prod", "shop/stock.py", "count_100%_of_it"): "ignored",
        ("billing", "prod", "billing/invoice.py", "render"): "resolved",
        ("shop", "staging", "shop/orders.py", "create_order"): "regressed",
        ("mail", "", "common/files.py", "read"): "ignored",
    }
    return Fleet(tuple(calls), statuses)
