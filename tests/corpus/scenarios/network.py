"""What a freeze can be: DNS, TCP, TLS, HTTP, against servers of this process that take their time."""

import asyncio
import contextlib
import http.server
import importlib
import os
import socket
import ssl
import threading
import time
import urllib.request

from tests.corpus.scenario import freezes, stopwatch
from tests.corpus.scenarios.waits import later

IO = {"cause": ("io", "wait")}


def full_listener():
    """The address of a socket that takes no further connection: Linux drops the SYN, the client waits."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    address = listening.getsockname()
    keep = [listening]
    while True:
        client = socket.socket()
        client.settimeout(0.1)
        keep.append(client)
        try:
            client.connect(address)
        except TimeoutError:
            return address, keep
        except socket.timeout:  # noqa: UP041 - 3.10 still tells them apart here and there
            return address, keep


@freezes("TCP: `connect`", operation="socket.socket.connect", prepare=full_listener, **IO)
async def tcp_connect(prepared):
    client = socket.socket()
    client.settimeout(0.06)
    with contextlib.suppress(OSError), stopwatch:
        client.connect(prepared[0])  # <- culprit
    client.close()


@freezes("TCP: `create_connection`", operation="socket.socket.connect", prepare=full_listener, **IO)
async def tcp_create_connection(prepared):
    with contextlib.suppress(OSError), stopwatch:
        socket.create_connection(prepared[0], timeout=0.06)  # <- culprit


@freezes("TCP: `accept`", operation="socket.socket.accept", **IO)
async def tcp_accept():
    listening = socket.create_server(("127.0.0.1", 0))
    later(socket.create_connection, listening.getsockname())
    await asyncio.sleep(0)
    with stopwatch:
        listening.accept()  # <- culprit


@freezes("TCP: `recv`", operation="socket.socket.recv", **IO)
async def tcp_recv():
    left, right = socket.socketpair()
    later(right.send, b"x")
    await asyncio.sleep(0)
    with stopwatch:
        left.recv(1)  # <- culprit


@freezes("TCP: `sendall`", operation="socket.socket.sendall", **IO)
async def tcp_sendall():
    left, right = socket.socketpair()

    def read():
        time.sleep(0.08)
        while right.recv(1 << 20):
            pass

    threading.Thread(target=read, daemon=True).start()
    await asyncio.sleep(0)
    with stopwatch:
        left.sendall(b"x" * 4_000_000)  # <- culprit


@freezes("TCP: reading a `makefile`", operation="socket.socket.recv_into", **IO)
async def tcp_makefile():
    left, right = socket.socketpair()
    file = left.makefile("rb")
    later(right.send, b"x\n")
    await asyncio.sleep(0)
    with stopwatch:
        file.readline()  # <- culprit


@freezes("a TLS handshake", operation="ssl.SSLSocket.do_handshake", prepare=ssl.create_default_context, **IO)
async def tls_handshake(context):
    left, _right = socket.socketpair()
    left.settimeout(0.06)
    await asyncio.sleep(0)
    with contextlib.suppress(OSError), stopwatch:
        context.wrap_socket(left, server_hostname="localhost")  # <- culprit


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers after a while."""

    def do_GET(self):
        time.sleep(0.08)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve():
    """The address of an HTTP server in a process of its own."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Slow)
    if os.fork() == 0:
        server.serve_forever()
    return f"http://127.0.0.1:{server.server_port}/"


def serve_urllib():
    """A server's address and an opener, which loads certificates when it is made."""
    return serve(), urllib.request.build_opener(urllib.request.ProxyHandler({}))


@freezes("HTTP: `urllib.request`", operation="urllib.Request", prepare=serve_urllib, **IO)
async def http_urllib(prepared):
    url, opener = prepared
    await asyncio.sleep(0)
    with stopwatch:
        opener.open(url)  # <- culprit


def serve_requests():
    """A server's address and a session of requests."""
    session = importlib.import_module("requests").Session()
    session.trust_env = False
    return serve(), session


@freezes("HTTP: `requests`", operation="socket.socket.recv_into", prepare=serve_requests, requires=("requests",), **IO)
async def http_requests(prepared):
    url, session = prepared
    await asyncio.sleep(0)
    with stopwatch:
        session.get(url)  # <- culprit
