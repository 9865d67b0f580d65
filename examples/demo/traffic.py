"""The shop's customers: requests from one asynchronous client, all kinds in turn."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import httpx

REQUESTS: tuple[tuple[str, str], ...] = (
    ("POST", "/orders"),
    ("GET", "/reports/sales"),
    ("GET", "/terms"),
    ("GET", "/invoices/7"),
    ("GET", "/catalogue"),
    ("GET", "/bundles"),
    ("POST", "/stock/rake/reservations"),
    ("POST", "/carts"),
    ("GET", "/shipping/quote"),
    ("GET", "/exports/customers"),
    ("GET", "/queue"),
)

_CUSTOMERS = 6
_TIMEOUT_S = 60.0


class TrafficError(Exception):
    """The shop answered with an error or not at all. main() prints it and exits 1."""


@dataclass(frozen=True)
class Traffic:
    """What was sent, and what the customers saw."""

    requests: int
    slowest_ms: float


async def drive(shop_url: str, seconds: float) -> Traffic:
    """Send requests for so long, and each kind once by each customer at least. Raises TrafficError."""
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=_CUSTOMERS, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=shop_url, timeout=_TIMEOUT_S, limits=limits) as client:
        customers = [_customer(client, random.Random(seed), end) for seed in range(_CUSTOMERS)]
        answers_ms = [answer_ms for times in await asyncio.gather(*customers) for answer_ms in times]
    return Traffic(requests=len(answers_ms), slowest_ms=max(answers_ms))


async def _customer(client: httpx.AsyncClient, dice: random.Random, end: float) -> list[float]:
    answers_ms: list[float] = []
    while not answers_ms or time.monotonic() < end:
        for method, path in dice.sample(REQUESTS, len(REQUESTS)):
            started = time.monotonic()
            try:
                answer = await client.request(method, path)
                answer.raise_for_status()
            except httpx.HTTPError as error:
                raise TrafficError(f"{method} {path} failed: {error!r}") from error
            answers_ms.append((time.monotonic() - started) * 1000)
    return answers_ms
