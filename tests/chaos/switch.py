"""A wire that can be plugged over: agents connect here and are passed on to a collector.

`move` cuts the agents off and leaves what they sent with the collector they had: its end stays open, with reports in
flight. `cut` breaks all wires in the middle of what goes over them next, in whichever direction that is.
"""

import contextlib
import socket
import threading
from pathlib import Path

_CHUNK_BYTES = 65_536


class Switch:
    """A context manager. Threads pass bytes both ways until either side or `move` ends it."""

    def __init__(self, path: Path, target: str) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._cuts = 0
        self._near: list[socket.socket] = []
        self._far: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._start(self._accept)

    def __enter__(self) -> "Switch":
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)
        self._threads[0].join(30)
        self._listener.close()
        for end in self._near + self._far:
            _shut(end)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for end in self._near + self._far:
            end.close()

    def move(self, target: str) -> None:
        """From now on to `target`."""
        with self._lock:
            self._target = target
            near, self._near = self._near, []
            self._far += near  # to be closed at the end
        for end in near:
            _shut(end)

    def cut(self) -> None:
        """Of what goes over each wire next, half arrives; then both its ends are closed. New wires are whole."""
        self._cuts += 1

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="switch", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with self._lock:
                self._near.append(near)
                self._far.append(far)
                try:
                    far.connect(self._target)
                except OSError:
                    _shut(near)
                    continue
            self._start(self._pass_on, near, far, False, self._cuts)
            self._start(self._pass_on, far, near, True, self._cuts)

    def _pass_on(self, source: socket.socket, target: socket.socket, ends_target: bool, cuts_before: int) -> None:
        """What comes from the agent's end goes on; its end is not passed on: the collector must not see that it is
        gone."""
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if self._cuts > cuts_before:
                    target.sendall(data[: len(data) // 2])
                    _shut(source)
                    _shut(target)
                    return
                target.sendall(data)
        if ends_target:
            _shut(target)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
