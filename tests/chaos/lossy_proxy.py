"""A wire to PostgreSQL that loses the answers to commits: the server has committed, and who asked never learns it."""

import contextlib
import socket
import threading

_CHUNK_BYTES = 65_536
_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"
"""CommandComplete of a COMMIT (PostgreSQL, Message Formats)."""


class LossyProxy:
    """A context manager. Of every `lose_each` commits the last one's answer is kept back and the connection cut."""

    def __init__(self, port: int, *, lose_each: int) -> None:
        self._target = ("127.0.0.1", port)
        self._lose_each = lose_each
        self._lock = threading.Lock()
        self._commits = 0
        self.lost = 0
        """Answers kept back so far."""
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> "LossyProxy":
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)
        self._threads[0].join(30)
        self._listener.close()
        for end in self._ends:
            _shut(end)
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for end in self._ends:
            end.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="lossy-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            self._start(self._pass_on, client, server)
            self._start(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # An answer this short comes in one piece.
            while (data := source.recv(_CHUNK_BYTES)) and not (_COMMITTED in data and self._loses()):
                target.sendall(data)
        _shut(source)
        _shut(target)

    def _loses(self) -> bool:
        with self._lock:
            self._commits += 1
            loses = self._commits % self._lose_each == 0
            self.lost += loses
        return loses


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
