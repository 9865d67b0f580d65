"""Our named tuples are typing's, seen from outside."""

import copy
import inspect
import pickle
import sys
import typing
from collections.abc import Callable
from typing import get_type_hints

import pytest

from aiocop_wire import light_typing, messages
from aiocop_wire.light_typing import NamedTuple


class Ours(NamedTuple):
    """A point."""

    x: int
    y: "int"
    count: tuple[int, ...] = ()
    """Hides tuple.count."""
    label: str = "p"

    def __str__(self) -> str:
        return f"{self.label}:{self.x}"

    @property
    def total(self) -> int:
        return self.x + self.y

    @classmethod
    def at(cls, x: int) -> "Ours":
        return cls(x, x)


class Theirs(typing.NamedTuple):
    """A point."""

    x: int
    y: "int"
    count: tuple[int, ...] = ()
    label: str = "p"


ASKED: dict[str, Callable[[type], object]] = {
    "positional": lambda kind: tuple(kind(1, 2, (3,), "q")),
    "by name": lambda kind: tuple(kind(y=2, x=1)),
    "fields": lambda kind: (kind._fields, kind._field_defaults, kind.__match_args__),
    "attributes": lambda kind: (kind(1, 2).x, kind(1, 2).count, kind(1, 2, label="q").label),
    "make": lambda kind: tuple(kind._make([1, 2, (), "q"])),
    "replace": lambda kind: tuple(kind(1, 2)._replace(y=5, label="r")),
    "copy.replace": lambda kind: tuple(copy.replace(kind(1, 2), y=5)) if sys.version_info >= (3, 13) else None,
    "asdict": lambda kind: kind(1, 2)._asdict(),
    "equality": lambda kind: (kind(1, 2) == (1, 2, (), "p"), kind(1, 2) < (2,)),
    "hash": lambda kind: hash(kind(1, 2)) == hash((1, 2, (), "p")),
    "hints": lambda kind: (get_type_hints(kind), get_type_hints(kind.__new__)),
    "annotations": lambda kind: list(kind.__annotations__),
    "doc": lambda kind: kind.__doc__,
    "type": type,
    "no dictionary": lambda kind: hasattr(kind(1, 2), "__dict__"),
    "pickle": lambda kind: tuple(pickle.loads(pickle.dumps(kind(1, 2)))),
    "deepcopy": lambda kind: tuple(copy.deepcopy(kind(1, 2, ([],)))),
    "getnewargs": lambda kind: kind(1, 2).__getnewargs__(),
    "constructor": lambda kind: kind.__new__.__name__,
}
REFUSED: dict[str, Callable[[type], object]] = {
    "too few": lambda kind: kind(1),
    "too many": lambda kind: kind(1, 2, (), "q", 5),
    "unknown name": lambda kind: kind(1, 2, z=3),
    "make with too few": lambda kind: kind._make([1]),
    "replace of an unknown name": lambda kind: kind(1, 2)._replace(z=1),
    "assignment": lambda kind: setattr(kind(1, 2), "x", 3),
    "a new attribute": lambda kind: setattr(kind(1, 2), "z", 3),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_answers_are_those_of_typing(ask):
    assert ask(Ours) == ask(Theirs)


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_errors_are_those_of_typing(ask):
    with pytest.raises((TypeError, ValueError, AttributeError)) as theirs:
        ask(Theirs)
    with pytest.raises(theirs.type) as ours:
        ask(Ours)
    assert str(ours.value) == str(theirs.value).replace("Theirs", "Ours")


def test_looks():
    assert repr(Ours(1, 2)) == "Ours(x=1, y=2, count=(), label='p')"
    assert str(inspect.signature(Ours)) == "(x: int, y: 'int', count: tuple[int, ...] = (), label: str = 'p')"


def test_methods_of_the_class_win():
    assert (str(Ours.at(4)), Ours.at(4).total) == ("p:4", 8)


def test_a_default_before_a_field_without_one_is_refused():
    with pytest.raises(TypeError, match="without a default"):

        class Wrong(NamedTuple):
            x: int = 1
            y: int


def test_a_constructor_is_at_home_in_its_module():
    """Stacks that it is seen in are sorted by module and file (aiocop.frames)."""
    constructor = messages.SiteDelta.__new__
    assert constructor.__globals__["__name__"] == "aiocop_wire.light_typing"
    assert constructor.__code__.co_filename == messages.Hello.__new__.__code__.co_filename == light_typing.__file__
