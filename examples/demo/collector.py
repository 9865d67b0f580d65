"""What the demo asks its collector."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from demo.verdict import judge

if TYPE_CHECKING:
    from aiocop_collector.commands.client import Client

QUESTION = (("service", "shop"), ("since", "1h"), ("limit", "1000"))

_POLL_S = 1.5  # agents report every second: two equal answers so far apart mean that nothing is on its way


def settled_hotspots(client: Client, patience_s: float) -> dict[str, Any]:
    """The first answer that is complete and does not grow any more, or the last one when the patience is over."""
    end = time.monotonic() + patience_s
    answer = client.get("/hotspots", QUESTION)
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        before, answer = answer, client.get("/hotspots", QUESTION)
        if _counts(before) == _counts(answer) and not judge(answer["hotspots"]).missing:
            break
    return answer


def _counts(answer: dict[str, Any]) -> dict[str, int]:
    return {hotspot["id"]: hotspot["count"] for hotspot in answer["hotspots"]}
