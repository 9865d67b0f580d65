"""Stable 64-bit names for sites and traces, the same on every host, in every process and after every restart.

A fingerprint covers the frames from the call to the call site, each as module path, qualified function name and the
line's offset *inside* its function: it survives edits elsewhere in the file, other install prefixes and other hosts.
Line numbers in the file, addresses and arguments are not part of it.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib's own: with hashlib comes OpenSSL, 2 ms of a service's start
from collections.abc import Iterable
from typing import Final

_BYTES: Final = 8


def stable_id(*parts: str | int) -> int:
    """A 64-bit hash (unsigned) of a sequence of texts and integers; their boundaries and types count."""
    digest = blake2b(digest_size=_BYTES)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else b"\x00%d" % part
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "big")


def fingerprint(frames: Iterable[tuple[str, str, int]]) -> int:
    """Hash of (module path, qualified function name, line offset inside the function), innermost frame first."""
    parts: list[str | int] = []
    for path, function, line_offset in frames:
        parts += (path, function, line_offset)
    return stable_id(*parts)


def place_id(path: str, function: str) -> int:
    """The id of a call-site function, whatever blocks in it: what a capture is asked for by."""
    return stable_id("place", path, function)


def site_id(operation: str, site_fingerprint: int) -> int:
    """The id of a site: one (operation, fingerprint)."""
    return stable_id("site", operation, site_fingerprint)
