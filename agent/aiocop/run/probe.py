"""Whether a collector answers, asked the way an agent does: a hello, and a farewell that nothing will follow.

The collector sees a process of the service that reports nothing, and lists it under /agents.
"""

from __future__ import annotations

import socket
import time
from typing import Final, NamedTuple

from aiocop.config import Configuration
from aiocop.identity import ProcessIdentity
from aiocop_wire import (
    Address,
    Datagram,
    Farewell,
    FrameReader,
    Hello,
    Identity,
    Refused,
    UdpAddress,
    UnixAddress,
    Welcome,
    WireError,
    decode,
    encode,
    frame,
)
from aiocop_wire.seal import seal

TIMEOUT_S: Final = 2.0
_OBJECTION_S: Final = 0.2
"""How long the kernel may take to tell that nobody listens on a udp port of this machine."""
_RECEIVE_BYTES: Final = 1 << 16


class Answer(NamedTuple):
    """What one address said."""

    address: str
    answers: bool | None
    """None where nobody can know: udp."""
    detail: str


def ask_collectors(configuration: Configuration, timeout_s: float = TIMEOUT_S) -> list[Answer]:
    """The addresses in the agent's order, up to the first that answers."""
    identity = ProcessIdentity(configuration, lambda: "")
    asked: list[Answer] = []
    for address in configuration.collector:
        asked.append(_ask(address, identity(), configuration.udp_key.reveal(), timeout_s))
        if asked[-1].answers is not False:
            break
    return asked


def _ask(address: Address, identity: Identity, udp_key: bytes, timeout_s: float) -> Answer:
    answers: bool | None
    try:
        if isinstance(address, UnixAddress):
            answers, detail = _greet(address, identity, timeout_s)
        else:
            answers, detail = _send(address, identity, udp_key)
    except TimeoutError:
        answers, detail = False, f"something listens, but does not answer within {timeout_s:g} s"
    except WireError as error:
        answers, detail = False, f"something answers, but it is no collector that this agent understands: {error}"
    except OSError as error:
        answers, detail = False, error.strerror or str(error)
    return Answer(str(address), answers, detail)


def _greet(address: UnixAddress, identity: Identity, timeout_s: float) -> tuple[bool, str]:
    deadline_s = time.monotonic() + timeout_s
    frames = FrameReader()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(timeout_s)
        stream.connect(address.path)
        stream.sendall(frame(encode(Hello(identity))))
        while True:
            stream.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = stream.recv(_RECEIVE_BYTES)
            if not data:
                return False, "it closed the connection without an answer"
            for raw in frames.feed(data):
                message = decode(raw)
                if isinstance(message, Welcome):
                    stream.sendall(frame(encode(Farewell(0))))
                    return True, f"answers, aiocop-collector {message.collector}".rstrip()
                if isinstance(message, Refused):
                    return False, f"refuses this agent: {message.reason} {message.message}".rstrip()
                return False, f"answers a hello with {type(message).__name__.lower()}"


def _send(address: UdpAddress, identity: Identity, key: bytes) -> tuple[bool | None, str]:
    family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(_OBJECTION_S)
        datagrams.connect(target)
        data = encode(Datagram(identity, farewell=Farewell(0)))
        datagrams.send(seal(data, key, time.time_ns() // 1_000_000) if key else data)
        try:
            datagrams.recv(1)
        except ConnectionRefusedError:
            return False, "nobody listens there"
        except TimeoutError:
            pass
    return None, "sent; udp does not answer, so look for this host under /agents of the collector"
