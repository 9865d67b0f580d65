"""Protocols of uvloop's transports: each callback a slice, each class given back, errors under their own names."""

import asyncio
import socket
import time

import uvloop
from tests.support.detecting import detecting, the_slow_one

import aiocop


class Base(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        computes()
        self.transport.close()


class Inherits(Base):
    __slots__ = ()


class Fails(Base):
    def data_received(self, data):
        raise ValueError("of the protocol")


def computes():
    until = time.thread_time() + 0.06
    while time.thread_time() < until:
        pass


async def converse(protocol):
    """One connection to a server with that protocol, which says something and reads until the end."""
    running = asyncio.get_running_loop()
    server = await running.create_server(protocol_factory=protocol, host="127.0.0.1", port=0)
    client = socket.socket()
    client.setblocking(False)
    await running.sock_connect(client, server.sockets[0].getsockname())
    await running.sock_sendall(client, b"x")
    while await running.sock_recv(client, 100):
        pass
    client.close()
    server.close()


def test_a_callback_that_computes_is_one_slice_of_its_own():
    with detecting() as events:
        uvloop.run(converse(Base))
    event = the_slow_one(events)
    assert event.cause == "cpu"
    assert event.call_site.rpartition(":")[2] == "computes"


def test_the_classes_are_given_back():
    originals = {kind: dict(vars(kind)) for kind in (Base, Inherits)}
    making = uvloop.Loop.create_server
    with detecting() as events:
        uvloop.run(converse(Inherits))
        assert vars(Inherits)["data_received"] is not vars(Base)["data_received"]
        aiocop.stop()
    assert {kind: dict(vars(kind)) for kind in (Base, Inherits)} == originals
    assert uvloop.Loop.create_server is making
    the_slow_one(events)


def test_a_callback_that_raises_is_reported_by_uvloop_as_its_own():
    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
        await converse(Fails)

    reported = []
    with detecting():
        uvloop.run(main())
    (context,) = reported
    assert context["message"] == "Fatal error on transport TCPTransport"
    assert isinstance(context["protocol"], Fails)
