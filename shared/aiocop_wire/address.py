"""Addresses of a collector, as both sides write them: `unix:///run/aiocop/collector.sock`, `udp://127.0.0.1:8718`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from aiocop_wire.light_typing import NamedTuple

DEFAULT_HTTP_PORT: Final = 8717
DEFAULT_UDP_PORT: Final = 8718
_SOCKET_NAME: Final = "aiocop/collector.sock"
_MAX_PORT: Final = 65_535
_MAX_PORT_DIGITS: Final = 5
_MAX_UNIX_PATH_BYTES: Final = 107  # sun_path in unix(7), less the closing zero


class AddressError(ValueError):
    """An address that cannot be used; the text says what is wrong and shows one that works."""


class UnixAddress(NamedTuple):
    """A stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


class UdpAddress(NamedTuple):
    """A datagram socket. Port 0, on the collector's side, picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"udp://{host}:{self.port}"


Address = UnixAddress | UdpAddress


def parse_address(text: str) -> Address:
    """The address in `text`. Raises AddressError."""
    scheme, separator, rest = text.partition("://")
    if scheme == "unix" and separator:
        return _parse_unix(text, rest)
    if scheme == "udp" and separator:
        return _parse_udp(text, rest)
    raise AddressError(f"{text!r}: an address starts with unix:// or udp://, like udp://127.0.0.1:{DEFAULT_UDP_PORT}")


def _parse_unix(text: str, path: str) -> UnixAddress:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise AddressError(f"{text!r}: a unix address needs an absolute path, like unix:///run/aiocop/collector.sock")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        raise AddressError(f"{text!r}: a socket's path may have at most {_MAX_UNIX_PATH_BYTES} bytes")
    return UnixAddress(path)


def _parse_udp(text: str, rest: str) -> UdpAddress:
    host, separator, port = rest.removesuffix("/").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    digits = port.isascii() and port.isdigit() and len(port) <= _MAX_PORT_DIGITS
    if not separator or not host or "/" in host or not digits or int(port) > _MAX_PORT:
        raise AddressError(f"{text!r}: a udp address is udp://HOST:PORT, like udp://127.0.0.1:{DEFAULT_UDP_PORT}")
    return UdpAddress(host, int(port))


def default_socket_paths(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Where agent and collector look for each other when no address is given, in this order."""
    paths = [f"/run/{_SOCKET_NAME}"]
    runtime_dir = environ.get("XDG_RUNTIME_DIR")
    if runtime_dir:
        paths.append(f"{runtime_dir.rstrip('/')}/{_SOCKET_NAME}")
    return tuple(paths)
