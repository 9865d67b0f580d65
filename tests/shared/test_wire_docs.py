"""docs/wire.md says everything that crosses the socket."""

import re
from pathlib import Path

import pytest

from aiocop_wire import (
    CAUSES,
    PROTOCOL_VERSION,
    REASONS,
    Ack,
    Capture,
    CapturedMoment,
    CaptureRequest,
    Control,
    Controlled,
    Datagram,
    Define,
    Farewell,
    Health,
    Hello,
    Identity,
    LoopDelta,
    MalformedMessageError,
    Overhead,
    OversizedMessageError,
    Refused,
    Report,
    SiteDefinition,
    SiteDelta,
    SlowEvent,
    SlowSite,
    Stall,
    TraceDefinition,
    UnknownVersionError,
    Welcome,
    fingerprint,
    limits,
    site_id,
)

_TEXT = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
_FLOWING = " ".join(_TEXT.split())
_WORDS = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", _TEXT))))
_MESSAGES = (Hello, Welcome, Refused, Ack, Control, Define, Report, Stall, Controlled, Farewell, Datagram)
_ITEMS = (
    LoopDelta,
    Identity,
    SiteDefinition,
    TraceDefinition,
    SiteDelta,
    SlowEvent,
    SlowSite,
    Health,
    Overhead,
    CaptureRequest,
    Capture,
    CapturedMoment,
)


@pytest.mark.parametrize("kind", _MESSAGES + _ITEMS)
def test_every_field_is_named(kind):
    assert set(kind._fields) <= _WORDS


@pytest.mark.parametrize("kind", _MESSAGES)
def test_every_message_has_a_section(kind):
    assert f"\n### {kind.__name__.lower()}\n" in _TEXT


@pytest.mark.parametrize(
    "kind", [SiteDefinition, TraceDefinition, SiteDelta, SlowSite, CaptureRequest, CapturedMoment, LoopDelta]
)
def test_the_elements_of_an_item_are_in_their_order(kind):
    assert f"`[{', '.join(kind._fields)}]`" in _TEXT


@pytest.mark.parametrize("word", CAUSES + REASONS)
def test_every_cause_and_reason_is_named(word):
    assert word in _WORDS


@pytest.mark.parametrize("error", [MalformedMessageError, OversizedMessageError, UnknownVersionError])
def test_every_reason_to_refuse_is_named(error):
    assert error.reason in _WORDS


@pytest.mark.parametrize(
    "limit",
    [getattr(limits, name) for name in dir(limits) if name.startswith(("MAX_", "MIN_")) or name.endswith("_BYTES")],
)
def test_every_limit_is_stated(limit):
    assert re.search(rf"\b{limit:,}\b".replace(",", " "), _TEXT)


def test_the_version_and_its_history():
    assert _TEXT.startswith(f"# The wire: protocol version {PROTOCOL_VERSION}\n")
    assert re.findall(r"^\| (\d+) \| ", _TEXT.split("## Versions")[1], re.MULTILINE) == [
        str(version) for version in range(1, PROTOCOL_VERSION + 1)
    ]


def test_the_example_is_right():
    number = fingerprint([("socket.py", "create_connection", 5), ("shop/orders.py", "Orders.create", 3)])
    assert f" {number}," in _FLOWING
    assert f"is {site_id('open', number)}." in _FLOWING
