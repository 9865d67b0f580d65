"""Who reports: one process, from `start()` to `stop()` or its death."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from aiocop._stdlib import getpid, time_ns, urandom
from aiocop.config import Configuration
from aiocop_wire import Identity, __version__
from aiocop_wire.limits import MAX_NAME


class ProcessIdentity:
    """Makes the identity of this process when called. Make a new one per process, fork and `start()`.

    `loops` tells which event loops have run so far (`asyncio`, `uvloop`): it is asked at each call, because the first
    loop usually comes after `start()`. Everything else is fixed at construction.
    """

    def __init__(self, configuration: Configuration, loops: Callable[[], str]) -> None:
        self._loops = loops
        self._fixed = Identity(
            instance=urandom(16),
            pid=getpid(),
            host=os.uname().nodename.encode("utf-8", "replace").decode()[:MAX_NAME],
            service=configuration.service,
            environment=configuration.environment,
            release=configuration.release,
            python=".".join(map(str, sys.version_info[:3])),
            agent_version=__version__,
            started_at_ms=time_ns() // 1_000_000,
        )

    @property
    def instance(self) -> bytes:
        """Sixteen random bytes."""
        return self._fixed.instance

    def __call__(self) -> Identity:
        fixed = self._fixed
        return Identity(
            instance=fixed.instance,
            pid=fixed.pid,
            host=fixed.host,
            service=fixed.service,
            environment=fixed.environment,
            release=fixed.release,
            python=fixed.python,
            loop=self._loops()[:MAX_NAME],
            agent_version=fixed.agent_version,
            started_at_ms=fixed.started_at_ms,
        )
