"""Protocol callbacks of uvloop's transports as slices of their own: uvloop calls them from C, past every method of its
loop that could be replaced.

What makes a transport is given a factory of protocols; the classes of what it returns get their callbacks replaced,
each class once, until `remove`. A protocol that came to its transport in another way (`set_protocol`), or whose class
is built in, is seen from its first audit event on (`Slices.enter_implicit`).

Cost model. A callback costs what any slice does, and a call more; on other loops, and where somebody else than a
transport calls it, two look-ups.
"""

from __future__ import annotations

import asyncio.protocols
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from aiocop._stdlib import get_ident
from aiocop.patches import Patches
from aiocop.slice import Slices

_MAKING: Final = (
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "subprocess_exec",
    "subprocess_shell",
)
_CALLBACKS: Final = (
    "buffer_updated",
    "connection_lost",
    "connection_made",
    "data_received",
    "datagram_received",
    "eof_received",
    "error_received",
    "pause_writing",
    "pipe_connection_lost",
    "pipe_data_received",
    "process_exited",
    "resume_writing",
)
_MAX_CLASSES: Final = 1_000
"""A program that makes classes of protocols without end gets no more of them watched."""


class UvloopProtocols:
    """The replaced methods of protocols' classes, and of the loop that is given them."""

    def __init__(self, slices: Slices, run_callback: Callable[..., Any]) -> None:
        self._slices = slices
        self._run_callback = run_callback
        self._loop = Patches()
        self._callbacks = Patches()
        self._classes: set[type] = set()

    def install(self, uvloop: ModuleType) -> None:
        """Watch the protocols of transports made from now on."""
        for name in _MAKING:
            self._loop.replace(uvloop.Loop, name, self._making)

    def remove(self) -> None:
        """Give all methods back."""
        self._loop.restore()
        self._callbacks.restore()
        self._classes.clear()

    def _making(self, original: Callable[..., Any]) -> Callable[..., Any]:
        watching = self._watching

        def make_transport(loop: Any, /, *args: Any, **kwargs: Any) -> Any:
            if args:
                args = (watching(args[0]), *args[1:])
            elif "protocol_factory" in kwargs:
                kwargs["protocol_factory"] = watching(kwargs["protocol_factory"])
            return original(loop, *args, **kwargs)

        return make_transport

    def _watching(self, factory: Any) -> Any:
        # Not a factory: let uvloop say so about what the caller passed.
        if not callable(factory):
            return factory

        def make_protocol() -> Any:
            protocol = factory()
            kind = type(protocol)
            if kind not in self._classes and len(self._classes) < _MAX_CLASSES:
                self._watch(kind)
            return protocol

        return make_protocol

    def _watch(self, kind: type) -> None:
        self._classes.add(kind)
        for name in _CALLBACKS:
            callback = getattr(kind, name, None)
            # The empty ones of asyncio's base classes need no watching, an inherited one that is watched no second.
            if callback is not None and not _is_empty(callback) and not hasattr(callback, _WATCHED):
                self._callbacks.replace(kind, name, self._measuring)

    def _measuring(self, original: Callable[..., Any]) -> Callable[..., Any]:
        find_thread = self._slices.threads.get
        run_callback = self._run_callback

        def callback(*args: Any, **kwargs: Any) -> Any:
            thread = find_thread(get_ident())
            if kwargs or (thread is not None and thread.started_ns and not thread.implicit):
                return original(*args, **kwargs)
            try:
                return run_callback(original, *args)
            except Exception:
                # Unlike a callback's, uvloop reports it under the protocol's own name.
                if thread is not None:
                    thread.raised = None
                raise

        setattr(callback, _WATCHED, True)
        return callback


_WATCHED: Final = "__aiocop_watched__"


def _is_empty(callback: Any) -> bool:
    return getattr(callback, "__module__", None) == asyncio.protocols.__name__
