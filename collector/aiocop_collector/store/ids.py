"""Deterministic ids of dimension rows: every collector computes the same one.

Databases hold signed 64-bit integers and the wire unsigned ones; the API shows sixteen hexadecimal digits.
"""

from typing import Final

from aiocop_wire import stable_id

_SIGN: Final = 1 << 63
_RANGE: Final = 1 << 64
_OF_SERVICE: Final = 0xFFFF << 48
"""The bits of a site's id that are its service's."""


def to_signed(unsigned: int) -> int:
    """The signed 64-bit integer with the same bits."""
    return unsigned - _RANGE if unsigned >= _SIGN else unsigned


def to_unsigned(signed: int) -> int:
    """The unsigned 64-bit integer with the same bits."""
    return signed % _RANGE


def to_hex(signed: int) -> str:
    """As the API shows an id."""
    return f"{signed % _RANGE:016x}"


def from_hex(text: str) -> int:
    """The id that `to_hex` showed. Raises ValueError."""
    if len(text) != 16:
        raise ValueError(f"{text!r:.40} is not an id: an id has sixteen hexadecimal digits")
    return to_signed(int(text, 16))


def service_id(service: str, environment: str) -> int:
    return to_signed(stable_id("service", service, environment))


def release_id(service: int, release: str) -> int:
    return to_signed(stable_id("release", service % _RANGE, release))


def hotspot_id(service: int, path: str, function: str) -> int:
    return to_signed(stable_id("hotspot", service % _RANGE, path, function))


def site_id(service: int, wire_site: int) -> int:
    """`wire_site` is the id in the agent's definition: one (operation, fingerprint).

    It begins like its service's, so that the rows of a service lie side by side: a commit has the sites of few
    services, and scattered ones would cost it a page each in every table. Two of 10 000 sites of a service have the
    same id once in five million services.
    """
    own = stable_id("site", service % _RANGE, wire_site)
    return to_signed(service & _OF_SERVICE | own & ~_OF_SERVICE)


def trace_id(site: int, wire_trace: int) -> int:
    return to_signed(stable_id("trace", site % _RANGE, wire_trace))


def stall_id(agent: str, slice_ns: int) -> int:
    """`agent` is the agent's id, `slice_ns` what names the stall among those of its agent."""
    return to_signed(stable_id("stall", agent, slice_ns))


def settings_id(scope: str, name: str, environment: str | None) -> int:
    """Of what is wanted of a service (in one environment, or in all of them) or of an agent."""
    return to_signed(stable_id("settings", scope, name, *(() if environment is None else (environment,))))


def message_id(event: str, facts: tuple[int, ...], webhook: str) -> int:
    """Of what a webhook is told: the same for the same event, whoever finds it."""
    return to_signed(stable_id("message", event, *[fact % _RANGE for fact in facts], webhook))


def duty_key(duty: str) -> int:
    """Number of the advisory lock on a duty (election.py)."""
    return to_signed(stable_id("duty", duty))


def slow_event_id(instance: bytes, sequence: int, position: int) -> int:
    return to_signed(stable_id("slow event", instance.hex(), sequence, position))
