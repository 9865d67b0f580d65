"""Answers as the OpenAPI document shows them."""

from typing import Any, Final

EXAMPLE_HOTSPOT: Final[dict[str, Any]] = {
    "id": "9f2c61b0a4d7e835",
    "service": "shop",
    "environment": "prod",
    "call_site": "shop/orders.py:42:create_order",
    "entry_point": "socket.py:836:create_connection",
    "reason": "io_blocking",
    "severity_level": "high",
    "severity_score": 50,
    "status": "open",
    "operations": [{"name": "socket.getaddrinfo", "count": 812, "blocked_ms": 9120.4}],
    "count": 1630,
    "slow_count": 790,
    "blocked_ms": 58112.7,
    "share": 0.61,
    "max_ms": 912.0,
    "p50_ms": 31.2,
    "p95_ms": 88.0,
    "p99_ms": 240.1,
    "processes": 12,
    "first_seen": "2026-01-30T08:12:44Z",
    "last_seen": "2026-01-31T11:59:58.120Z",
    "first_release": "1.4.0",
    "last_release": "1.5.2",
    "advice": "Use an asynchronous HTTP client (httpx.AsyncClient, aiohttp), or asyncio.to_thread().",
}
EXAMPLE_WINDOW: Final[dict[str, Any]] = {
    "since": "2026-01-31T11:00:00Z",
    "until": "2026-01-31T12:00:00Z",
    "resolution_s": 60,
}


EXAMPLE_DETAIL: Final[dict[str, Any]] = {
    **EXAMPLE_HOTSPOT,
    "status": "resolved",
    "window": EXAMPLE_WINDOW,
    "note": "httpx since 1.5.3",
    "owner": "team-orders",
    "resolved_in_release": "1.5.2",
    "ignored_until": None,
    "ignored_below_ms_per_hour": None,
    "history": [
        {
            "at": "2026-01-31T12:00:00Z",
            "who": "ci",
            "changes": {"status": ["open", "resolved"], "resolved_in_release": [None, "1.5.2"]},
        }
    ],
    "sites": [],
    "lines": [{"line": 42, "count": 1630, "slow_count": 790, "blocked_ms": 58112.7, "max_ms": 912.0}],
    "entry_points": [],
    "releases": [],
    "traces": [],
    "agents": [],
    "slow_events": [],
    "captures": [],
    "waiting_max": 41,
    "waiting_mean": 12.5,
}
