"""Sizes both sides keep to. A sender stays below them; a receiver refuses what is above.

Every limit bounds what one peer can make the other hold: bytes per message, items per list, characters per text.
"""

from __future__ import annotations

from typing import Final

MAX_MESSAGE_BYTES: Final = 1 << 20
"""One stream message without its length prefix: 1 MiB. The agent splits a report that would be larger."""

MAX_DATAGRAM_BYTES: Final = 65_507
"""The largest UDP payload over IPv4. What an agent really sends is given by the path (see below)."""

LOOPBACK_DATAGRAM_BYTES: Final = 8_192
"""What an agent puts in one datagram to a loopback address."""

NETWORK_DATAGRAM_BYTES: Final = 1_432
"""What an agent puts in one datagram elsewhere: an Ethernet frame of 1500 B less IPv6, UDP and a tunnel's headers."""

MAX_ITEMS: Final = 10_000
"""Elements in one list or map of a message."""

MAX_FRAMES: Final = 64
"""Frames in one trace."""

MAX_TEXT: Final = 1_024
"""Characters in one text: a path, a function's qualified name, a context value."""

MAX_NAME: Final = 200
"""Characters in a name: service, environment, release, host, operation, drop reason."""

MAX_CONTEXT_ITEMS: Final = 32
"""Keys in the context of one slow event."""

MAX_ARGUMENTS: Final = 16
"""Arguments of one call in a slow event."""

MAX_LOOPS: Final = 64
"""Loop threads that one report keeps apart."""

MAX_FEATURES: Final = 32
"""Names in the features of one hello or welcome."""

MAX_CAPTURE_REQUESTS: Final = 16
"""Requests in one control."""

MAX_CAPTURED_MOMENTS: Final = 128
"""Moments of one capture."""

MAX_CAPTURED_TRACES: Final = 16
"""Different stacks of one capture."""

MIN_CONTROL_THRESHOLD_US: Final = 1_000
"""The lowest threshold an agent lets a collector set: below it every slice would be slow."""

MAX_CONTROL_THRESHOLD_US: Final = 600_000_000
"""The highest one: ten minutes."""
