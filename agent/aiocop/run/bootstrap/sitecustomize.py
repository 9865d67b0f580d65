"""Run by Python at its start, because aiocop-run puts this file's folder on PYTHONPATH: waits for an event loop.

Every Python that the command starts comes through here: servers' masters, their workers, multiprocessing's helpers,
tools in a shell-out, even other Pythons (this file loads from 3.7 on). So nothing is done yet, and asyncio is not
imported: `asyncio.events` and `uvloop` get light replacements when somebody else imports them, and the agent starts in
the process in which the first loop is about to run. A server that forks its workers has no loop in the master; its
workers inherit the replacements, and each starts an agent of its own.

The user's own sitecustomize runs as if this one were not here.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

TYPE_CHECKING = False  # type checkers take it for true; to import it from typing costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType
    from typing import Any

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_PYTHONPATH = "PYTHONPATH"

# Every loop, of whatever library, announces itself here before it runs callbacks: get_running_loop() depends on it.
_ANNOUNCEMENT = "_set_running_loop"
# The agent measures uvloop's callbacks from where they are scheduled, which the first are before their loop runs.
_UVLOOP_SCHEDULING = (
    "call_soon",
    "call_soon_threadsafe",
    "call_later",
    "add_reader",
    "add_writer",
    "add_signal_handler",
)


# From gunicorn 25 on its master answers gunicornc on a loop in a thread: no application, and threads of ours have no
# place in a process that forks workers.
_NOT_A_SERVICE = "gunicorn.ctl."


class FirstLoop:
    """Starts the agent when the process's first event loop is about to run; takes itself back from everywhere then."""

    def __init__(self) -> None:
        self._lock = RLock()  # loops of two threads: the second waits until the agent is there
        self._begun = False  # with the lock held: start() may run a callback that comes here again
        self._done = False
        self._announcement: list[Replaced] = []
        self._scheduling: list[Replaced] = []
        self._imports = ImportWatch({"asyncio.events": self._meet_asyncio, "uvloop": self._meet_uvloop})

    def await_it(self) -> None:
        """From now on; does nothing when somebody waits already."""
        if not any(getattr(finder, "is_aiocop_import_watch", False) for finder in sys.meta_path):
            self._imports.install()

    def _meet_asyncio(self, events: ModuleType) -> None:
        original = getattr(events, _ANNOUNCEMENT)

        def set_running_loop(loop: Any) -> Any:
            if not self._done and loop is not None:
                self._begin()
            return original(loop)

        # `asyncio` copies the name from `asyncio.events` when it is imported, which is usually after this.
        for module in (events, sys.modules.get("asyncio")):
            if getattr(module, _ANNOUNCEMENT, None) is original:
                setattr(module, _ANNOUNCEMENT, set_running_loop)
        self._announcement += [
            Replaced(name, _ANNOUNCEMENT, original, set_running_loop) for name in ("asyncio.events", "asyncio")
        ]

    def _meet_uvloop(self, uvloop: ModuleType) -> None:
        for name in _UVLOOP_SCHEDULING:
            original = getattr(uvloop.Loop, name)
            replacement = self._schedule(name, original)
            setattr(uvloop.Loop, name, replacement)
            self._scheduling.append(Replaced("uvloop", name, original, replacement))

    def _schedule(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(loop: Any, *args: Any, **kwargs: Any) -> Any:
            if self._done or not self._begin():  # done: somebody has kept us, or wraps us
                return original(loop, *args, **kwargs)
            return getattr(loop, name)(*args, **kwargs)

        return schedule

    def _begin(self) -> bool:
        """Whether this call started the agent, or waited for the one that did."""
        if _is_called_by(_NOT_A_SERVICE):
            return False
        with self._lock:
            if self._begun:
                return self._done
            self._begun = True
            path = os.environ.get(_PYTHONPATH)
            try:
                # A Python that is started meanwhile (by a logging handler, say) must not come here again.
                _set_path(_without_folder(path))
                import aiocop  # noqa: PLC0415 - a process without a loop shall not pay for it

                self._give_back(self._scheduling)  # where the agent will put its own
                aiocop.start()
            except Exception as error:  # noqa: BLE001 - the border to the service: it runs unwatched rather than not at all
                _say(f"{type(error).__name__}: {error}")
            finally:
                _set_path(path)  # workers that this process starts are to be watched too
                self._imports.remove()
                self._give_back(self._scheduling)
                self._give_back(self._announcement)
                self._done = True
            return True

    def _give_back(self, replaced: list[Replaced]) -> None:
        while replaced:
            replaced.pop().give_back()


class Replaced:
    """An attribute of a module, or of uvloop.Loop, that is ours for a while."""

    def __init__(self, module: str, name: str, original: Any, replacement: Any) -> None:
        self._module = module
        self._name = name
        self._original = original
        self._replacement = replacement

    def give_back(self) -> None:
        """Unless somebody replaced it after us: they will find us inert."""
        owner: Any = sys.modules.get(self._module)
        if owner is not None and self._name in _UVLOOP_SCHEDULING:
            owner = owner.Loop
        if owner is None or vars(owner).get(self._name) is not self._replacement:
            return
        if isinstance(owner, type):
            delattr(owner, self._name)  # uvloop.Loop inherits all of them
        else:
            setattr(owner, self._name, self._original)


class ImportWatch:
    """A finder that finds nothing itself: it lets the others find, and is told once the module has run."""

    is_aiocop_import_watch = True

    def __init__(self, awaited: dict[str, Callable[[ModuleType], None]]) -> None:
        self._awaited = awaited
        self._finding: set[str] = set()  # other finders of this kind ask all finders, and so us again

    def install(self) -> None:
        """First among the finders. What is imported already (by a .pth file) is met at once."""
        for name in list(self._awaited):
            module = sys.modules.get(name)
            if module is not None:
                self._meet(name, module)
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        self._awaited.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name not in self._awaited or name in self._finding:
            return None
        self._finding.add(name)
        try:
            for finder in sys.meta_path:
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = find(name, path, target) if find is not None else None
                if spec is not None:
                    self._attach(name, spec.loader)
                    return spec
            return None
        finally:
            self._finding.discard(name)

    def _attach(self, name: str, loader: Any) -> None:
        """Have `loader` tell us. The loader stays the module's own: inspect and linecache ask it for the source."""
        if isinstance(loader, type) or not hasattr(loader, "__dict__"):
            _say(f"{name} comes from {loader!r}, which cannot be followed; add aiocop.start() to the program")
            return
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if module.__name__ == name:
                vars(loader).pop("exec_module", None)
            run(module)
            if module.__name__ == name:
                self._meet(name, module)

        loader.exec_module = exec_module

    def _meet(self, name: str, module: ModuleType) -> None:
        meet = self._awaited.pop(name, None)
        if meet is not None:
            try:
                meet(module)
            except Exception as error:  # noqa: BLE001 - the border to the service: its import must succeed
                _say(f"{name} is not what is expected: {type(error).__name__}: {error}")


def run_next_sitecustomize() -> None:
    """The user's, found where Python would have found it; what it raises is Python's to report, as ever."""
    this = sys.modules.pop(__name__, None)
    index = next((index for index, entry in enumerate(sys.path) if _is_folder(entry)), None)
    sys.path[:] = [entry for entry in sys.path if not _is_folder(entry)]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        if this is not None:
            sys.modules[__name__] = this
    finally:
        if index is not None:
            sys.path.insert(index, _FOLDER)  # launchers hand sys.path to their workers, as PYTHONPATH


def _is_called_by(modules: str) -> bool:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect would have to be imported
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(modules):
            return True
        frame = frame.f_back
    return False


def _is_folder(entry: object) -> bool:
    return isinstance(entry, str) and bool(entry) and os.path.abspath(entry) == _FOLDER


def _without_folder(path: str | None) -> str | None:
    if path is None:
        return None
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if not _is_folder(entry)) or None


def _set_path(path: str | None) -> None:
    if path is None:
        os.environ.pop(_PYTHONPATH, None)
    else:
        os.environ[_PYTHONPATH] = path


def _say(reason: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"aiocop-run: process {os.getpid()} ({sys.executable}) is not watched: {reason}\n")


FirstLoop().await_it()
run_next_sitecustomize()
