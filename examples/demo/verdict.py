"""What must be in the table after the traffic, and what must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXPECTED: Mapping[str, str] = {
    "shop/orders.py:create_order": "requests.get in an async handler",
    "shop/receipts.py:send_receipt": "urlopen in a background task",
    "shop/reports.py:sales_by_region": "a synchronous SQLite query",
    "shop/pages.py:terms": "a file read for every request",
    "shop/invoices.py:print_invoice": "subprocess.run",
    "shop/catalogue.py:search": "parsing a large JSON document",
    "shop/pricing.py:best_bundle": "a pure-Python loop",
    "shop/stock.py:reserve": "a wait for a threading.Lock",
    "shop/carts.py:Carts.expire": "fsync in a call_later callback",
}
"""Call site without its line, to what is wrong there."""

INNOCENT: frozenset[str] = frozenset({"shop/shipping.py", "shop/exports.py", "shop/waiting.py"})
"""Modules that never freeze the loop; no call site in them may appear."""


@dataclass(frozen=True)
class Verdict:
    """`missing` and `accused` are lines for people; both are empty when all is as it should be."""

    missing: tuple[str, ...]
    accused: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Everything expected is there and nobody innocent."""
        return not self.missing and not self.accused


def judge(hotspots: Iterable[Mapping[str, Any]]) -> Verdict:
    """Compare the hotspots of `GET /hotspots` with what the shop is known to do."""
    seen = {str(hotspot["call_site"]) for hotspot in hotspots}
    without_lines = {_without_line(call_site) for call_site in seen}
    return Verdict(
        missing=tuple(f"{site} ({why})" for site, why in EXPECTED.items() if site not in without_lines),
        accused=tuple(sorted(site for site in seen if site.partition(":")[0] in INNOCENT)),
    )


def _without_line(call_site: str) -> str:
    path, _, rest = call_site.partition(":")
    _, _, function = rest.partition(":")
    return f"{path}:{function}"
