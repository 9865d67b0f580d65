"""The last look at values before they leave: the user's hook, then the lengths that are shipped.

It runs on the shipper's thread, so a hook that is slow holds up reports and no loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from aiocop.shipping.fit import fit_name, fit_value
from aiocop.shipping.report_source import ReportSource
from aiocop_wire import ContextValue, SlowEvent, SlowSite
from aiocop_wire.limits import MAX_TEXT

Scrub = Callable[[str, str, ContextValue], object]
"""`scrub(source, name, value)`: what is shipped instead of a value, None for nothing. `source` is `"context"` or an
operation; `name` the key in the context, or an argument's name or position ("0")."""

CONTEXT: Final = "context"
MAX_EVENT_TEXT: Final = 4_096
"""Characters of names and values shipped with one slow event."""

_logger = logging.getLogger("aiocop")


class Scrubber:
    """Scrubs the slow events of one source. Only the shipper's thread calls it; anybody reads `failures`."""

    def __init__(self, hook: Scrub | None, source: ReportSource) -> None:
        self._hook = hook
        self._source = source
        self.failures = 0
        """Values that were left out because the hook raised."""

    def scrub(self, event: SlowEvent) -> SlowEvent:
        """`event` with what the hook leaves of its values."""
        if not event.context and not any(site.arguments for site in event.sites):
            return event
        left = MAX_EVENT_TEXT
        context, left = self._values(CONTEXT, event.context, left)
        sites = []
        for site in event.sites:
            arguments, left = self._values(self._operation(site), site.arguments, left)
            sites.append(site._replace(arguments=arguments))
        return event._replace(context=context, sites=tuple(sites))

    def _operation(self, site: SlowSite) -> str:
        if not site.arguments:
            return ""
        known = self._source.define([site.site_id], []).sites
        return known[0].operation if known else ""

    def _values(
        self, source: str, values: Mapping[str, ContextValue], left: int
    ) -> tuple[dict[str, ContextValue], int]:
        """What is shipped of these, and how many characters are left for the event's others."""
        shipped: dict[str, ContextValue] = {}
        for key, value in values.items():
            name = fit_name(key)
            scrubbed = value if self._hook is None else self._ask(self._hook, source, name, value)
            left -= len(name)
            if left <= 0 or (scrubbed is None and self._hook is not None):
                continue
            shipped[name] = fitted = fit_value(scrubbed, min(MAX_TEXT, left))
            left -= len(fitted) if type(fitted) is str else 8
        return shipped, left

    def _ask(self, hook: Scrub, source: str, name: str, value: ContextValue) -> object:
        try:
            return hook(source, name, value)
        except Exception:
            self.failures += 1
            if self.failures == 1:
                _logger.warning(
                    "scrub failed on %s of %s, which is not shipped; further failures are only counted",
                    name,
                    source,
                    exc_info=True,
                )
            return None
