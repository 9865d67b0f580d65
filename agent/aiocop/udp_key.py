"""The key that authenticates datagrams: where it comes from, and that nobody prints it by mistake."""

from __future__ import annotations

import os
from typing import Final

from aiocop._stdlib import close, open_file, read
from aiocop_wire import check_key

_MAX_FILE_BYTES: Final = 8192


class UdpKey:
    """A key, or none when empty. Shows neither itself nor its length; `reveal` is for the transport."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes = b"") -> None:
        self._key = key

    def reveal(self) -> bytes:
        return self._key

    def __str__(self) -> str:
        return "(set)" if self._key else ""

    def __repr__(self) -> str:
        return f"<UdpKey {self or '(none)'}>"

    def __bool__(self) -> bool:
        return bool(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UdpKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def read_key(value: object) -> UdpKey:
    """The key as it was given. Raises ValueError, whose text does not show it."""
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return UdpKey(check_key(value))


def read_key_file(path: str) -> UdpKey:
    """The key in a file. Raises ValueError."""
    try:
        descriptor = open_file(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = read(descriptor, _MAX_FILE_BYTES)
        finally:
            close(descriptor)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    return read_key(data.decode("utf-8", "surrogateescape"))
