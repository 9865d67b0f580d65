"""Child processes of the demo: started, watched, and always cleaned up."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_POLL_S = 0.05
_STOP_DEADLINE_S = 10.0
_TAIL_LINES = 30


class ChildError(Exception):
    """A child died or did not become ready; the text has the end of its log. main() prints it and exits 1."""


def _without_aiocop(environment: Mapping[str, str]) -> dict[str, str]:
    """What a developer set for a collector or a service of their own is not for the demo."""
    return {name: value for name, value in environment.items() if not name.startswith("AIOCOP_")}


class Child:
    """One process with its log, in a process group of its own: Ctrl-C reaches us, and we stop it in order."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_without_aiocop(os.environ), **environment},
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for(self, pattern: str, deadline_s: float) -> str:
        """The first group of `pattern` once a line of the log matches it. Raises ChildError."""
        end = time.monotonic() + deadline_s
        while True:
            found = re.search(pattern, self._log.read_text(errors="replace"))
            if found:
                return found.group(1)
            self.check()
            if time.monotonic() > end:
                raise ChildError(
                    f"{self.name} said nothing like {pattern!r} within {deadline_s:.0f} s.\n{self._tail()}"
                )
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raises ChildError if the process is gone."""
        status = self._process.poll()
        if status is not None:
            raise ChildError(f"{self.name} ended with status {status}.\n{self._tail()}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to the whole group for what is still there after ten seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_DEADLINE_S)
        # The group outlives its leader when that one died by itself; nobody in it is the usual case.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {self.name}: {line}" for line in lines) or f"    {self.name}: (its log is empty)"
