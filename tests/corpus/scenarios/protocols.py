"""Where a freeze can hide: in what transports call."""

import asyncio
import socket
import time

from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}


async def serve_once(protocol, *, send=b"x"):
    """Run a server with that protocol and one connection that says something and goes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, server.sockets[0].getsockname())
    await asyncio.sleep(0.01)
    await loop.sock_sendall(client, send)
    await asyncio.sleep(0.02)
    client.close()
    await asyncio.sleep(0.02)
    server.close()


@freezes("`connection_made`", **SLEEP)
async def connection_made():
    class Blocks(asyncio.Protocol):
        def connection_made(self, transport):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    await serve_once(Blocks)


@freezes("`data_received`", **SLEEP)
async def data_received():
    class Blocks(asyncio.Protocol):
        def data_received(self, data):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    await serve_once(Blocks)


@freezes("`data_received` that computes", cause="cpu")
async def data_received_computes():
    class Computes(asyncio.Protocol):
        def data_received(self, data):
            deadline = time.thread_time() + 0.08
            with stopwatch:
                while time.thread_time() < deadline: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip

    await serve_once(Computes)


@freezes("`connection_lost`", **SLEEP)
async def connection_lost():
    class Blocks(asyncio.Protocol):
        def connection_lost(self, error):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    await serve_once(Blocks)


@freezes("`eof_received`", **SLEEP)
async def eof_received():
    class Blocks(asyncio.Protocol):
        def eof_received(self):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    await serve_once(Blocks)


@freezes("`buffer_updated`", **SLEEP)
async def buffer_updated():
    class Blocks(asyncio.BufferedProtocol):
        def get_buffer(self, _size):
            return bytearray(64)

        def buffer_updated(self, _count):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    await serve_once(Blocks)


@freezes("`datagram_received`", **SLEEP)
async def datagram_received():
    class Blocks(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Blocks, local_addr=("127.0.0.1", 0))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    client.sendto(b"x", transport.get_extra_info("sockname"))
    await asyncio.sleep(0.02)
    client.close()
    transport.close()


@freezes("`pipe_data_received` of a subprocess", **SLEEP)
async def pipe_data_received():
    class Blocks(asyncio.SubprocessProtocol):
        def pipe_data_received(self, fd, data):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

        def process_exited(self):
            exited.set()

    exited = asyncio.Event()
    transport, _ = await asyncio.get_running_loop().subprocess_exec(Blocks, "echo", "1")
    await exited.wait()
    await asyncio.sleep(0.02)
    transport.close()
