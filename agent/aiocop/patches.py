"""Attributes replaced on classes and modules, and given back."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from aiocop_wire.light_typing import NamedTuple


class _Replaced(NamedTuple):
    owner: Any
    name: str
    own: bool
    """Whether the owner had the attribute itself; an inherited one is given back by deleting ours."""
    original: Any
    replacement: Any


class Patches:
    """Some replaced attributes. One thread at a time replaces and restores."""

    def __init__(self) -> None:
        self._replaced: list[_Replaced] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> bool:
        """Replace `owner.name` by `make(original)`; once. False where there is no such attribute, or it is fixed."""
        if any(item.owner is owner and item.name == name for item in self._replaced):
            return True
        original = getattr(owner, name, None)
        if original is None:
            return False
        own = name in vars(owner)
        replacement = make(original)
        update_wrapper(getattr(replacement, "__func__", replacement), original)
        try:
            setattr(owner, name, replacement)
        except TypeError:
            # A built-in class; its operation is then only seen by samples.
            return False
        self._replaced.append(_Replaced(owner, name, own, original, replacement))
        return True

    def restore(self) -> None:
        """Give every attribute back that is still ours. One that somebody replaced later stays; ours then is inert."""
        for item in reversed(self._replaced):
            if vars(item.owner).get(item.name) is item.replacement:
                if item.own:
                    setattr(item.owner, item.name, item.original)
                else:
                    delattr(item.owner, item.name)
        self._replaced.clear()
