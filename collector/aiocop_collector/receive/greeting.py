"""The first bytes of a stream, and the descriptor that may come with them.

asyncio and uvloop read streams without asking for descriptors, and what is not asked for the kernel closes. So the
first read is done here, on the bare socket; then the stream is handed over, with what was read in front.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import socket
from typing import Final

_FIRST_BYTES: Final = 64 << 10
_MAX_DESCRIPTORS: Final = 4  # a hostile peer may pass more than one; the kernel closes what finds no room
_STREAM_LIMIT_BYTES: Final = 64 << 10
_GET_SEALS: Final = 1034  # F_GET_SEALS, linux/fcntl.h
_SHRINK_AND_GROW: Final = 0x0002 | 0x0004  # F_SEAL_SHRINK, F_SEAL_GROW


async def first_read(connection: socket.socket) -> tuple[bytes, int]:
    """Wait for the first bytes; the caller bounds the time. They and a descriptor, -1 where none (usable) came.

    The bytes are empty where the peer said nothing. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    while True:
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connection.fileno(), _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connection.fileno())
        room = socket.CMSG_LEN(_MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = connection.recvmsg(_FIRST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            continue
        return data, _only_memory(ancillary)


async def open_stream(connection: socket.socket, first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The stream of a connected socket, of which `first` was read already. Raises OSError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_STREAM_LIMIT_BYTES, loop=loop)
    reader.feed_data(first)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _settle(readable: "asyncio.Future[None]") -> None:
    if not readable.done():
        readable.set_result(None)


def _only_memory(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The first descriptor that is a sealed memory file; every other one is closed.

    Nothing else may be read from: a pipe, a terminal or a file of a slow file system would hold the collector up.
    """
    chosen = -1
    for level, kind, data in ancillary:
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            continue
        descriptors = array.array("i")
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        for descriptor in descriptors:
            if chosen < 0 and _is_sealed_memory(descriptor):
                chosen = descriptor
            else:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
    return chosen


def _is_sealed_memory(descriptor: int) -> bool:
    try:
        # Only memory files have seals: EINVAL from anything else (fcntl(2)).
        return fcntl.fcntl(descriptor, _GET_SEALS) & _SHRINK_AND_GROW == _SHRINK_AND_GROW
    except OSError:
        return False
