"""Around every test: nothing it started or replaced may be left behind.

Each check waits a little for what is still on its way out (a thread that ends, a process that is reaped) before it
calls it a leak. A test that keeps something for its whole module does so in a fixture of that scope, which is set up
before these checks look.
"""

import gc
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.leaks import callables, child_processes, open_descriptors, replaced, running_threads

# No test asserts a speed: how long an example takes says how busy the machine is.
settings.register_profile("aiocop", deadline=None)
settings.load_profile("aiocop")

_PATIENCE_S = 10.0
_POLL_S = 0.02


def _left_behind(now: Callable[[], dict[int, str]], before: dict[int, str]) -> list[str]:
    return [text for key, text in now().items() if before.get(key) != text]


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves threads, descriptors, child processes or replaced functions behind."""
    checks = (("thread", running_threads), ("descriptor", open_descriptors), ("child process", child_processes))
    before = {kind: now() for kind, now in checks}
    functions = callables()
    yield
    _stop_resource_tracker()
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        left = [f"{kind} {text}" for kind, now in checks for text in _left_behind(now, before[kind])]
        left += replaced(functions)
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail("left behind by this test: " + "; ".join(left))
        gc.collect()  # what only a reference cycle keeps alive is not ours to call a leak
        time.sleep(_POLL_S)


def _stop_resource_tracker() -> None:
    """multiprocessing's helper stays for the next user, with a pipe; it is the standard library's, not the test's."""
    tracker = resource_tracker._resource_tracker
    if tracker._pid is not None and Path(f"/proc/{tracker._pid}").exists():
        tracker._stop()
