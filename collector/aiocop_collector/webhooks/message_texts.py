"""What a message looks like: JSON as it is, or a sentence for Slack or Discord."""

import json
from collections.abc import Mapping
from typing import Any, Final

from aiocop_collector.config_file import Format

_DISCORD_MOST: Final = 2000
_SLACK_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))


def body_of(format_: Format, message: Mapping[str, Any]) -> str:
    """The JSON text that is posted."""
    if format_ == "slack":
        text = _sentence(message)
        for character, escape in _SLACK_ESCAPES:
            text = text.replace(character, escape)
        return json.dumps({"text": text})
    if format_ == "discord":
        # Nobody is to be pinged by a path or a function's name.
        return json.dumps({"content": _sentence(message)[:_DISCORD_MOST], "allowed_mentions": {"parse": []}})
    return json.dumps(message, separators=(",", ":"))


def _sentence(message: Mapping[str, Any]) -> str:
    data = message["data"]
    if message["type"] == "budget_exceeded":
        return (
            f"Budget exceeded: {_service(data)} was frozen for {data['blocked_share']:.1%} of its time in the last "
            f"{data['window_minutes']} minutes (budget {data['budget']:.1%})."
        )
    if message["type"] == "stall_in_progress":
        where = f"`{data['call_site']}`" if data["call_site"] else "a line nobody knows yet"
        operation = f" ({data['operation']})" if data["operation"] else ""
        more = data["url"] or f"Stall {data['id']}."
        return (
            f"Frozen now: {_service(data)}, process {data['pid']} on {data['host']}, for "
            f"{data['blocked_ms'] / 1000:.1f} s at {where}{operation}. {more}"
        )
    hotspot = data["hotspot"]
    what = "New hotspot" if message["type"] == "new_hotspot" else "Regressed"
    release = f" in release {data['release']}" if data.get("release") else ""
    parts = [
        f"{what} in {_service(hotspot)}{release}: `{hotspot['call_site']}` ({', '.join(hotspot['operations'])}).",
        hotspot["advice"],
        f"Owner: {hotspot['owner']}." if hotspot.get("owner") else "",
        hotspot["url"] or f"Hotspot {hotspot['id']}.",
    ]
    return " ".join(part for part in parts if part)


def _service(data: Mapping[str, Any]) -> str:
    return f"{data['service']} ({data['environment']})" if data["environment"] else str(data["service"])
