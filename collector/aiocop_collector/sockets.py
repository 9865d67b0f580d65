"""Sockets bound before anything is served, so that an address that cannot be used is one sentence and not a traceback.

Every function here raises BindError and returns a non-blocking socket that its caller closes.
"""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiocop_collector.errors import BindError
from aiocop_collector.settings import HttpAddress
from aiocop_wire import UdpAddress, UnixAddress, default_socket_paths

UDP_RECEIVE_BUFFER_BYTES: Final = 4 << 20
"""Asked of the kernel: at 100 000 datagrams a second the default 208 KiB last for a few milliseconds only."""

_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; Python has no name for it

BACKLOG: Final = 1024
_CONNECT_TIMEOUT_S: Final = 2.0


def default_unix_address() -> UnixAddress:
    """The first of the default sockets whose directory exists or can be made, and can be written to."""
    reasons = []
    for text in default_socket_paths():
        directory = Path(text).parent
        try:
            _make_directory(directory)
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror}")
            continue
        if os.access(directory, os.W_OK | os.X_OK):
            return UnixAddress(text)
        reasons.append(f"{directory}: not writable")
    raise BindError(
        f"no default place for the socket can be used ({'; '.join(reasons)}): name one with --listen unix:///PATH"
    )


def bind_unix(address: UnixAddress, *, mode: int = 0o660, group: str | None = None) -> socket.socket:
    """A listening stream socket at a path; to connect one must be allowed to write to it, as `mode` and `group` say.

    A directory that is made for it can be entered by the same group. A socket file nobody answers on (its collector was
    killed) is replaced; one that somebody answers on is an error.
    """
    path = Path(address.path)
    group_id = -1 if group is None else _group_id(group)
    try:
        if _make_directory(path.parent):
            os.chown(path.parent, -1, group_id)
        with _locked(path.parent):
            _remove_stale(path)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                bound.bind(address.path)
                # Before listen(): until then nobody can connect, whatever the umask made of the mode.
                os.chown(path, -1, group_id)
                path.chmod(mode)
                bound.listen(BACKLOG)
            except OSError:
                bound.close()
                raise
    except PermissionError as error:
        if group is None:
            raise BindError(f"{address} cannot be listened on: {error.strerror}") from error
        raise BindError(
            f"{address} cannot be listened on: {error.strerror}; to give the socket to the group {group!r}, the "
            "collector's user must be a member of it"
        ) from error
    except OSError as error:
        raise BindError(f"{address} cannot be listened on: {error.strerror}") from error
    return bound


def remove_unix(bound: socket.socket, address: UnixAddress, inode: int) -> None:
    """Close the socket and remove its file, unless the file by now belongs to another collector."""
    path = Path(address.path)
    # OSError: somebody removed the file or its directory; nothing is left to do.
    with contextlib.suppress(OSError), _locked(path.parent):
        if path.lstat().st_ino == inode:
            path.unlink()
    bound.close()


def bind_udp(address: UdpAddress) -> socket.socket:
    """A bound datagram socket with a large receive buffer."""
    bound = _bind(address.host, address.port, socket.SOCK_DGRAM, str(address))
    try:
        # Past net.core.rmem_max where we may; up to it where not.
        bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, UDP_RECEIVE_BUFFER_BYTES)
    except OSError:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_RECEIVE_BUFFER_BYTES)
    return bound


def bind_http(address: HttpAddress) -> socket.socket:
    """A listening TCP socket."""
    bound = _bind(address.host, address.port, socket.SOCK_STREAM, str(address))
    bound.listen(BACKLOG)
    return bound


def _bind(host: str, port: int, kind: socket.SocketKind, shown: str) -> socket.socket:
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise BindError(f"{shown} cannot be listened on: the host {host!r} is unknown ({error.strerror})") from error
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise BindError(f"{shown} is in use by another process: stop that one or choose another port") from error
        raise BindError(f"{shown} cannot be listened on: {error.strerror}") from error
    return bound


def _make_directory(directory: Path) -> bool:
    """Whether it was made."""
    if directory.is_dir():
        return False
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    return True


def _group_id(group: str) -> int:
    """Of a group's name or number. Raises BindError."""
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise BindError(f"--socket-group: there is no group {group!r} on this machine") from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One collector at a time looks at a stale file and replaces it; the kernel lets go when a process dies."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"unix://{path} cannot be listened on: the file there is not a socket and is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass  # a full backlog: somebody is there, only slow
    raise BindError(f"unix://{path} is in use by a running collector: stop that one or choose another path")
