"""`typing.NamedTuple` for what a service imports: the same classes, each made in a sixth of the time.

Most of what typing takes for a class are a function that is compiled for its constructor and methods that look the same
in every class. Here one constructor is compiled per number of fields, and its arguments are renamed for each class; the
methods are inherited. Instances are made and read as fast as typing's (measured on CPython 3.10 to 3.13).
"""

import sys
from _collections import _tuplegetter  # type: ignore[import-not-found]  # as in collections.namedtuple
from collections.abc import Iterable
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

_new: Final = tuple.__new__
_codes: Final[dict[int, CodeType]] = {}
"""Of constructors, by the number of fields."""


def _constructor(fields: tuple[str, ...], defaults: tuple[Any, ...]) -> FunctionType:
    """`__new__(_cls, first, second=…)`, which returns the tuple of its arguments."""
    code = _codes.get(len(fields))
    if code is None:
        arguments = "".join([f"_{index}, " for index in range(len(fields))])
        made = eval(f"lambda _cls, {arguments}: _new(_cls, ({arguments}))")  # noqa: S307 - names that are numbers
        # A stack that a watchdog sees it in is told by file and module: these, as of any function here.
        code = _codes[len(fields)] = made.__code__.replace(co_filename=__file__, co_name="__new__")
    return FunctionType(code.replace(co_varnames=("_cls", *fields)), globals(), "__new__", defaults)


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
            raise ValueError(f"Got unexpected field names: {list(values)!r}")
        return replaced

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
else:
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
