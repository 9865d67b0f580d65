"""The ids of OpenTelemetry's active span, for the context of events.

`aiocop.start()` registers `active_span`; a program that sets up step by step registers it itself. OpenTelemetry is
never imported here: a service that uses it has done so already, and one without it pays one look-up per reported slice.
"""

from __future__ import annotations

import sys
from typing import Final

_MODULE: Final = "opentelemetry.trace"


def active_span() -> dict[str, str] | None:
    """`trace_id` (32 hexadecimal digits) and `span_id` (16) as in W3C Trace Context; None without an active span."""
    trace = sys.modules.get(_MODULE)
    # While another thread imports it, the module is there and its functions are not.
    get_current_span = getattr(trace, "get_current_span", None)
    if get_current_span is None:
        return None
    span = get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
