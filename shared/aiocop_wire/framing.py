"""Messages on a stream: four bytes of length, big-endian, then that many bytes of msgpack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from aiocop_wire import limits
from aiocop_wire.errors import OversizedMessageError

_LENGTH: Final = struct.Struct(">I")


def frame(data: bytes) -> bytes:
    """`data` with its length prefix. Raises OversizedMessageError when no receiver would take it."""
    if len(data) > limits.MAX_MESSAGE_BYTES:
        raise OversizedMessageError(f"a message of {len(data)} bytes; at most {limits.MAX_MESSAGE_BYTES} are taken")
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Cuts a stream into messages. Holds at most one incomplete message and the bytes of the last `feed`."""

    def __init__(self, *, max_bytes: int = limits.MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Every message that `data` completes.

        Raises OversizedMessageError at a length above the limit; the stream is then unusable.
        """
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, position)
                if length > self._max_bytes:
                    raise OversizedMessageError(f"a message of {length} bytes; at most {self._max_bytes} are taken")
                end = position + _LENGTH.size + length
                if len(buffer) < end:
                    break
                message = bytes(buffer[position + _LENGTH.size : end])
                position = end
                yield message
        finally:
            del buffer[:position]
