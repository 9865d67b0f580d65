"""Queries of sqlite3, measured: its classes are built in and cannot be patched, so connections get a subclass.

`sqlite3.connect()` hands out connections of a subclass whose cursors measure, unless the caller brings a factory of its
own. A connection made before `install` and what a caller's own classes do is left to the watchdog's samples. The
subclasses are made when sqlite3 is first imported: the agent never imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from aiocop.calls import measuring_method
from aiocop.catalogue import Operation
from aiocop.patches import Patches
from aiocop.slice import Slices

MODULE: Final = "sqlite3.dbapi2"
_MEASURED: Final = {"Cursor": ("execute", "executemany", "executescript", "fetchall"), "Connection": ("commit",)}


class SqliteQueries:
    """The replaced `sqlite3.connect`."""

    def __init__(self, slices: Slices, operations: dict[str, Operation]) -> None:
        self._slices = slices
        self._operations = operations
        self._patches = Patches()

    def install(self, dbapi2: ModuleType) -> None:
        """Measure the queries of connections made from now on."""
        connection = self._connection_class(dbapi2)
        for owner in (dbapi2, sys.modules["sqlite3"]):
            self._patches.replace(owner, "connect", lambda original: _connecting(original, connection))

    def remove(self) -> None:
        """New connections are plain ones again; those that exist stop measuring with the agent."""
        self._patches.restore()

    def _connection_class(self, dbapi2: ModuleType) -> type:
        cursor = self._measuring(dbapi2.Cursor)

        def make_cursor(connection: Any, factory: Any = cursor) -> Any:
            return dbapi2.Connection.cursor(connection, factory)

        # The built-in shortcuts make a plain cursor, whatever cursor() says.
        shortcuts = {name: _shortcut(name) for name in ("execute", "executemany", "executescript")}
        return self._measuring(dbapi2.Connection, cursor=make_cursor, **shortcuts)

    def _measuring(self, base: type, **methods: Any) -> type:
        for name in _MEASURED[base.__name__]:
            operation = self._operations[f"sqlite3.{base.__name__}.{name}"]
            methods[name] = measuring_method(self._slices, operation, getattr(base, name))
        return type(base.__name__, (base,), {**methods, "__module__": base.__module__, "__slots__": ()})


def _shortcut(name: str) -> Callable[..., Any]:
    def shortcut(connection: Any, *args: Any) -> Any:
        return getattr(connection.cursor(), name)(*args)

    shortcut.__name__ = name
    return shortcut


def _connecting(original: Callable[..., Any], connection: type) -> Callable[..., Any]:
    factory_position = 5

    def connect(*args: Any, **kwargs: Any) -> Any:
        if len(args) <= factory_position:
            kwargs.setdefault("factory", connection)
        return original(*args, **kwargs)

    return connect
