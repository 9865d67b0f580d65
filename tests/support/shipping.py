"""Shippers for tests, and what they must not leave behind."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.counting_source import CountingSource
from tests.support.waiting import wait_until

from aiocop.config import Configuration
from aiocop.identity import ProcessIdentity
from aiocop.shipping.shipper import THREAD_NAME, Shipper
from aiocop.shipping.statistics import ShippingStatistics
from aiocop_wire import Address, UnixAddress


@contextmanager
def running_shipper(source: CountingSource, *addresses: Address | Path, **options: object) -> Iterator[Shipper]:
    """A started shipper with a short interval; stopped afterwards, whatever happened."""
    shipper = make_shipper(source, *addresses, **options)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop(0.1)
        wait_until(lambda: shipper.statistics().connection == "stopped", "the shipper to stop")


def make_shipper(source: CountingSource, *addresses: Address | Path, **options: object) -> Shipper:
    configuration = Configuration.resolve("shop", environ={}, program="test")
    usable = tuple(UnixAddress(str(address)) if isinstance(address, Path) else address for address in addresses)
    return Shipper(
        source=source,
        identity=ProcessIdentity(configuration, lambda: "asyncio"),
        addresses=usable,
        **{"interval_s": 0.02, **options},
    )


def assert_balanced(statistics: ShippingStatistics) -> None:
    """The identity that must hold at any moment."""
    dropped = sum(count for reason, count in statistics.dropped.items() if not reason.endswith("_events"))
    assert statistics.recorded == statistics.acknowledged + statistics.pending + dropped, statistics
    assert statistics.pending >= 0, statistics
    assert statistics.acknowledged <= statistics.shipped <= statistics.recorded, statistics


def open_descriptors() -> dict[str, str]:
    """Number and target of every descriptor of this process."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def shipper_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
