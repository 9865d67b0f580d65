"""What a frame is: application, library, standard library, event loop or ourselves; its module path and full name.

The hot path decides by a frame's module name alone (`f_globals["__name__"]`): with an audit hook installed, looking at
a code object raises an audit event of its own and costs ten times as much. Code objects are looked at once per new key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from aiocop_wire import FRAME_APPLICATION, FRAME_LIBRARY, FRAME_STANDARD, Frame

FRAME_AIOCOP: Final = 3
"""The agent's own frame: a wrapper. Skipped wherever it stands."""
FRAME_RUNNER: Final = 4
"""The frame of the agent that runs a slice: a trace ends above it."""

_PACKAGE_DIR: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD_DIR: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MAX_REMEMBERED: Final = 20_000
"""Modules and code objects whose kind and name are kept; a program that makes modules without end starts over."""
_MAIN_MODULES: Final = frozenset(("__main__", "__mp_main__"))
_LOOP_MODULES: Final = ("asyncio", "uvloop")
_RUNNERS: Final = ("asyncio.events", "asyncio.runners", "uvloop")
"""Modules of the loops that call callbacks: below the agent's own runner, or instead of it in an implicit slice."""
_IDLE_FUNCTIONS: Final = frozenset(
    (
        ("threading", "wait"),
        ("threading", "join"),
        ("threading", "_wait_for_tstate_lock"),
        ("concurrent.futures.thread", "_worker"),
        ("selectors", "select"),
    )
)
"""Functions of the standard library in which a thread waits: for a lock, for work, for a socket."""
_LAZY_MODULES: Final = ("encodings",)
"""Standard library packages that import parts of themselves at first use, on behalf of whatever C code asked."""
_HAS_QUALNAME: Final = sys.version_info >= (3, 11)


class FrameNames:
    """Kinds of modules and names of code objects, each found out once and kept.

    Written by whichever thread sees a module or function first; two threads that race compute the same value.
    """

    def __init__(self, *, runner_module: str) -> None:
        self.runner_globals = vars(sys.modules[runner_module])
        """The globals of the module whose frames run the slices: the quickest way to know these frames."""
        self._runners = dict.fromkeys((runner_module, *_RUNNERS), FRAME_RUNNER)
        self.kinds: dict[Any, int] = dict(self._runners)
        """Kind by module name. The hot path reads it; `kind` fills it."""
        self._application: tuple[str, ...] = ()
        self._own_places: frozenset[str] = frozenset()
        self._qualnames: dict[CodeType, str] = {}

    def set_application(self, application: tuple[str, ...]) -> None:
        """Packages that are application code wherever they are installed. Forgets what was found out so far."""
        self._application = application
        self.kinds.clear()
        self.kinds.update(self._runners)

    def set_own_places(self, places: frozenset[str]) -> None:
        """Folders and files that are application code although installed. Forgets what was found out so far."""
        self._own_places = places
        self.set_application(self._application)

    def kind(self, frame: FrameType) -> int:
        """The kind of a frame whose module name is not in `kinds` yet."""
        name = frame.f_globals.get("__name__")
        kind = self._kind_of(name, frame.f_code.co_filename)
        # A module's name decides for all of its frames; code without a module decides anew each time.
        if isinstance(name, str):
            if len(self.kinds) >= _MAX_REMEMBERED:
                self.set_application(self._application)
            self.kinds[name] = kind
        return kind

    def _kind_of(self, name: object, filename: str) -> int:
        if isinstance(name, str):
            top = name.partition(".")[0]
            if any(name == prefix or name.startswith(prefix + ".") for prefix in self._application):
                return FRAME_APPLICATION
            if filename.startswith("<frozen ") or (top in sys.builtin_module_names):
                return FRAME_STANDARD
        if filename.startswith(_PACKAGE_DIR):
            return FRAME_AIOCOP
        if any(part in filename for part in _INSTALLED):
            own = self._own_places
            is_own = own and (filename in own or os.path.dirname(filename) in own)
            return FRAME_APPLICATION if is_own else FRAME_LIBRARY
        if filename.startswith(_STANDARD_DIR):
            return FRAME_STANDARD
        return FRAME_APPLICATION

    def describe(self, module: object, code: CodeType, line: int, kind: int) -> Frame:
        """The frame as it is shown and shipped."""
        return Frame(module_path(module, code.co_filename), line, self.qualname(code), kind)

    def qualname(self, code: CodeType) -> str:
        """`Class.method`, `outer.<locals>.inner`. Before Python 3.11 code does not know it: see `register_module`."""
        if _HAS_QUALNAME:
            return code.co_qualname  # type: ignore[attr-defined,no-any-return,unused-ignore]
        return self._qualnames.get(code, code.co_name)

    def register_module(self, module_globals: Mapping[str, Any], code: CodeType) -> None:
        """Find the qualified names of a module's functions, on Python 3.10, when one of its codes is not known yet."""
        if not _HAS_QUALNAME and code not in self._qualnames:
            if len(self._qualnames) >= _MAX_REMEMBERED:
                self._qualnames.clear()
            self._qualnames.setdefault(code, code.co_name)
            name = module_globals.get("__name__")
            for value in list(module_globals.values()):
                _collect_qualnames(value, name, self._qualnames, 0)


def _collect_qualnames(value: object, module: object, names: dict[CodeType, str], depth: int) -> None:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    elif isinstance(value, property):
        for accessor in (value.fget, value.fset, value.fdel):
            _collect_qualnames(accessor, module, names, depth)
        return
    wrapped = getattr(value, "__wrapped__", None) if isinstance(value, FunctionType) else None
    if wrapped is not None and depth < 8:
        _collect_qualnames(wrapped, module, names, depth + 1)
    if isinstance(value, FunctionType):
        _name_code(value.__code__, value.__qualname__, names)
    elif isinstance(value, type) and value.__module__ == module and depth < 8:
        for attribute in list(vars(value).values()):
            _collect_qualnames(attribute, module, names, depth + 1)


def _name_code(code: CodeType, qualname: str, names: dict[CodeType, str]) -> None:
    names[code] = qualname
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _name_code(constant, f"{qualname}.<locals>.{constant.co_name}", names)


def module_path(module: object, filename: str) -> str:
    """`shop/orders.py` for module `shop.orders`; the file's own name for `__main__` and for code without a module."""
    if filename.startswith("<") and not filename.startswith("<frozen "):
        return filename
    if not isinstance(module, str) or not module or module in _MAIN_MODULES:
        return os.path.basename(filename) or filename
    path = module.replace(".", "/")
    if os.path.basename(filename) == "__init__.py":
        return path + "/__init__.py"
    return path + ".py"


def is_loop_module(module: object) -> bool:
    """Whether a module belongs to an event loop."""
    return isinstance(module, str) and module.partition(".")[0] in _LOOP_MODULES


def is_idle(module: object, code: CodeType) -> bool:
    """Whether a thread waits, and computes nothing, whose innermost frame is this."""
    return (module, code.co_name) in _IDLE_FUNCTIONS


def is_own_business(module: object) -> bool:
    """Whether what happens below a module is the interpreter's or the loop's own doing, and not the application's."""
    return is_loop_module(module) or (isinstance(module, str) and module.partition(".")[0] in _LAZY_MODULES)
