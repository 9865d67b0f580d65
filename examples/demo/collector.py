"""The demo's side of the collector's HTTP API."""

from __future__ import annotations

import time
from typing import Any

import httpx

from demo.verdict import judge

_POLL_S = 1.5  # agents report every second: two equal answers so far apart mean that nothing is on its way
_DEADLINE_S = 30.0


class CollectorError(Exception):
    """The collector did not answer as it should. main() prints it and exits 1."""


class CollectorClient:
    """Asks one collector; `token` only where it wants one."""

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=30)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def hotspots(self, service: str, since: str) -> dict[str, Any]:
        """The answer of `GET /hotspots`. Raises CollectorError."""
        try:
            answer = self._client.get("/hotspots", params={"service": service, "since": since, "limit": 1000})
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise CollectorError(f"{error}\n{error.response.text}") from error
        except httpx.HTTPError as error:
            raise CollectorError(f"GET /hotspots failed: {error!r}") from error
        body: dict[str, Any] = answer.json()
        return body

    def settled_hotspots(self, service: str, since: str) -> dict[str, Any]:
        """The first answer that is complete and does not grow any more, or the last one before the deadline."""
        end = time.monotonic() + _DEADLINE_S
        answer = self.hotspots(service, since)
        while time.monotonic() < end:
            time.sleep(_POLL_S)
            before, answer = answer, self.hotspots(service, since)
            if _counts(before) == _counts(answer) and not judge(answer["hotspots"]).missing:
                break
        return answer


def _counts(answer: dict[str, Any]) -> dict[str, int]:
    return {hotspot["id"]: hotspot["count"] for hotspot in answer["hotspots"]}
