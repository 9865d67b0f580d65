"""How long the process's control group was kept from running, because its quota of CPU time was used up.

Containers with a CPU limit stand still for the rest of a period (100 ms) once their share of it is spent. Until Linux
6.17 a thread's own times call that "runnable without a CPU"; from 6.18 on, which takes a throttled thread out of the
queue, they call it waiting (kernel/sched/fair.c, throttle_cfs_rq_work), and only the group's cpu.stat tells.

`cpu.stat` has `throttled_time` (ns, version 1) or `throttled_usec` (version 2), of all CPUs together
(Documentation/admin-guide/cgroup-v2.rst; Documentation/scheduler/sched-bwc.rst). Reading it costs 5 to 50 µs, so it is
read only where `nr_periods` says that there is a quota; whether there is one now is asked again every ten seconds.
"""

from __future__ import annotations

from typing import Final

from aiocop._stdlib import close, open_file, perf_counter_ns, pread

_ROOT: Final = "/sys/fs/cgroup"
_MEMBERSHIP: Final = "/proc/self/cgroup"
_ASK_AGAIN_NS: Final = 10_000_000_000
_SCALES: Final = {b"throttled_time": 1, b"throttled_usec": 1_000}
_MOST_BYTES: Final = 4_096


class CpuQuota:
    """Reads the group that the process is in when this is made; from any thread, until `close`."""

    __slots__ = ("_descriptor", "_quiet_until_ns")

    def __init__(self, membership: str = _MEMBERSHIP, root: str = _ROOT) -> None:
        self._quiet_until_ns = 0
        """While there is no quota: when to look again. Written by whoever looks; a look more does no harm."""
        self._descriptor = _open_first(_candidates(membership, root))

    def throttled_ns(self) -> int:
        """In all so far; 0 where there is no quota, and where the system does not tell."""
        now_ns = perf_counter_ns()
        if self._descriptor is None or now_ns < self._quiet_until_ns:
            return 0
        try:
            fields = pread(self._descriptor, _MOST_BYTES, 0).split()
            stated = {name: int(value) for name, value in zip(fields[::2], fields[1::2], strict=False)}
        except (OSError, ValueError):
            return 0
        if not stated.get(b"nr_periods"):
            self._quiet_until_ns = now_ns + _ASK_AGAIN_NS
            return 0
        return sum([stated.get(name, 0) * scale for name, scale in _SCALES.items()])

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close(descriptor)


def _candidates(membership: str, root: str) -> list[str]:
    """Where the group's numbers may be: by its path in the hierarchy; at the root, where a container sees its own."""
    descriptor = _open_first([membership])
    if descriptor is None:
        return []
    try:
        lines = pread(descriptor, _MOST_BYTES, 0).decode(errors="surrogateescape").splitlines()
    except OSError:
        return []
    finally:
        close(descriptor)
    found: list[str] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            folders = [f"{root}/{controllers}", f"{root}/cpu"]
        elif not controllers:
            folders = [root, f"{root}/unified"]
        else:
            continue
        found += [f"{folder}/{path.strip('/')}/cpu.stat" for folder in folders]
        found += [f"{folder}/cpu.stat" for folder in folders]
    return found  # version 2 comes last in the file: the controller is its only where version 1 does not have it


def _open_first(paths: list[str]) -> int | None:
    for path in paths:
        try:
            return open_file(path, 0)
        except OSError:
            continue
    return None
