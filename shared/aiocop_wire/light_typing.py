"""`NamedTuple` and `Protocol` for what a service imports: for type checkers those of typing, but cheap to make.

Most of what a named tuple of typing takes, 70 to 150 µs, are a function that is compiled for its constructor, and
methods that look the same in every class. Here constructors come out of the bytecode cache, and only their arguments
are renamed for each class; the methods are inherited: 10 µs. Instances are made and read as fast as those of typing. A
protocol takes 20 µs, and nobody asks for it at run time. (Measured on CPython 3.10 to 3.13.)
"""

from __future__ import annotations

import sys
from _collections import _tuplegetter  # type: ignore[import-not-found]  # as in collections.namedtuple
from collections.abc import Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

_new: Final = tuple.__new__
_UnexpectedField: Final = TypeError if sys.version_info >= (3, 13) else ValueError
_CONSTRUCTORS: Final = (
    lambda z: _new(z, ()),
    lambda z, a: _new(z, (a,)),
    lambda z, a, b: _new(z, (a, b)),
    lambda z, a, b, c: _new(z, (a, b, c)),
    lambda z, a, b, c, d: _new(z, (a, b, c, d)),
    lambda z, a, b, c, d, e: _new(z, (a, b, c, d, e)),
    lambda z, a, b, c, d, e, f: _new(z, (a, b, c, d, e, f)),
    lambda z, a, b, c, d, e, f, g: _new(z, (a, b, c, d, e, f, g)),
    lambda z, a, b, c, d, e, f, g, h: _new(z, (a, b, c, d, e, f, g, h)),
    lambda z, a, b, c, d, e, f, g, h, i: _new(z, (a, b, c, d, e, f, g, h, i)),
    lambda z, a, b, c, d, e, f, g, h, i, j: _new(z, (a, b, c, d, e, f, g, h, i, j)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k: _new(z, (a, b, c, d, e, f, g, h, i, j, k)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m: _new(z, (a, b, c, d, e, f, g, h, i, j, k, m)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m, n: _new(z, (a, b, c, d, e, f, g, h, i, j, k, m, n)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m, n, o: _new(z, (a, b, c, d, e, f, g, h, i, j, k, m, n, o)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p: _new(z, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q: _new(z, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q)),
    lambda z, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r: _new(
        z, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r)
    ),
)
"""By the number of fields; a class with more of them needs another line here."""


def _constructor(fields: tuple[str, ...], defaults: tuple[Any, ...]) -> FunctionType:
    """`__new__(_cls, first, second=…)`, which returns the tuple of its arguments."""
    code = cast("FunctionType", _CONSTRUCTORS[len(fields)]).__code__
    return FunctionType(code.replace(co_name="__new__", co_varnames=("_cls", *fields)), globals(), "__new__", defaults)


class _Methods(tuple[Any, ...]):
    """What all named tuples have, under the names and with the errors of collections.namedtuple."""

    __slots__ = ()
    _fields = tuple[str, ...]()

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Any:
        made = _new(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made

    def _replace(self, /, **values: Any) -> Any:
        replaced = self._make(map(values.pop, self._fields, self))
        if values:
            raise _UnexpectedField(f"Got unexpected field names: {list(values)!r}")
        return replaced

    __replace__ = _replace
    """What copy.replace calls, from Python 3.13 on."""

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class _Maker(type):
    """Makes of a class statement with the base NamedTuple a plain class: a tuple with names for its items."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:  # noqa: ARG004 - always one
        annotations = body["__annotations__"]
        fields = tuple(annotations)
        defaults = {field: body[field] for field in fields if field in body}
        if tuple(defaults) != fields[len(fields) - len(defaults) :]:
            raise TypeError(f"{name}: a field without a default follows one that has a default")
        constructor = _constructor(fields, tuple(defaults.values()))
        constructor.__qualname__ = f"{body['__qualname__']}.__new__"
        constructor.__annotations__ = annotations
        for index, field in enumerate(fields):
            body[field] = _tuplegetter(index, None)
        body |= {"__slots__": (), "__new__": constructor, "__match_args__": fields}
        body |= {"_fields": fields, "_field_defaults": defaults}
        return type(name, (_Methods,), body)


# A newer Python keeps annotations elsewhere in a class statement, and may do other things in its own way: typing knows.
if TYPE_CHECKING or sys.version_info >= (3, 14):
    from typing import NamedTuple as NamedTuple
    from typing import Protocol as Protocol
else:
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
    Protocol = object
