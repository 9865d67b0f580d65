"""What comes from a collector: messages, bounded in size and in bytes per second, because it may be hostile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aiocop.shipping.transport import ONE_S_NS
from aiocop_wire import FrameReader, Message, OversizedMessageError, decode

_MAX_MESSAGE_BYTES: Final = 1 << 14
_MAX_BYTES_PER_S: Final = 1 << 17


class Incoming:
    """The input of one stream after the other; the bound on bytes per second holds across them."""

    def __init__(self) -> None:
        self._reader = FrameReader(max_bytes=_MAX_MESSAGE_BYTES)
        self._second_ns = 0
        self._received_in_second = 0

    def restart(self) -> None:
        """A new stream begins."""
        self._reader = FrameReader(max_bytes=_MAX_MESSAGE_BYTES)

    def feed(self, now_ns: int, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises WireError; the stream is then unusable."""
        if now_ns - self._second_ns >= ONE_S_NS:
            self._second_ns = now_ns
            self._received_in_second = 0
        self._received_in_second += len(data)
        if self._received_in_second > _MAX_BYTES_PER_S:
            raise OversizedMessageError(f"more than {_MAX_BYTES_PER_S} bytes in a second")
        for message in self._reader.feed(data):
            yield decode(message)
