"""What can be wrong with bytes from a peer.

WireError                       the root; a receiver catches this one, counts it by its `reason`, and goes on
├── MalformedMessageError       not msgpack, not a known message, or a field of the wrong type or size
├── OversizedMessageError       longer than the limit for a message; a stream cannot be followed past it
├── UnsealedDatagramError       no seal where a key is asked for
├── ForgedDatagramError         a seal of another key
├── StaleDatagramError          a right seal of another time: a replay, or clocks that differ
└── UnknownVersionError         a protocol version this side does not speak; the peer must be upgraded
"""

from __future__ import annotations

from typing import ClassVar


class WireError(Exception):
    """Bytes that are not a message this side can use. `reason` is a short stable word for counters."""

    reason: ClassVar[str] = "wire"


class MalformedMessageError(WireError):
    """Not msgpack, an unknown message type, a missing field, or a value outside its type or limit."""

    reason: ClassVar[str] = "malformed"


class OversizedMessageError(WireError):
    """A length prefix or a datagram above the limit. Close the stream: there is no next frame to find."""

    reason: ClassVar[str] = "oversized"


class UnsealedDatagramError(WireError):
    """A datagram without a seal, where a key is asked for."""

    reason: ClassVar[str] = "unsealed"


class ForgedDatagramError(WireError):
    """A seal that was not made with the key, or a datagram that was changed after it."""

    reason: ClassVar[str] = "forged"


class StaleDatagramError(WireError):
    """A right seal of another time: a replay, or the clocks of the hosts differ."""

    reason: ClassVar[str] = "stale"


class UnknownVersionError(WireError):
    """The peer speaks another protocol version. `version` is what it said."""

    reason: ClassVar[str] = "unknown_version"

    def __init__(self, version: object) -> None:
        super().__init__(f"protocol version {version!r:.40} is not spoken here; upgrade the older side")
        self.version = version
