"""What is compared: each variant set up in the running process as its documentation says, or not at all.

Runs in the variant's own environment: nothing is imported that the variant does not need.
"""

import importlib
import os

BARE, CALLBACK, SHIPPING, PUBLISHED, DEBUG = "bare", "callback", "shipping", "aiocop", "debug"
STOPPED, DEACTIVATED = "stopped", "deactivated"
VARIANTS = {
    BARE: "bare",
    CALLBACK: "ours, callback",
    SHIPPING: "ours, shipping",
    PUBLISHED: "aiocop 1.2.1, callback",
    DEBUG: "asyncio debug mode",
    STOPPED: "ours after stop()",
    DEACTIVATED: "aiocop 1.2.1 after deactivate()",
}
COLLECTOR_VARIABLE = "BENCHMARK_COLLECTOR"
"""The address that the shipping variant reports to."""


class Counted:
    """The callback: it counts, as the cheapest callback that does something."""

    def __init__(self) -> None:
        self.events = 0

    def __call__(self, _event) -> None:
        self.events += 1


def set_up(variant: str) -> Counted:
    """Before or inside a running loop; `activate` must follow inside of it."""
    counted = Counted()
    if variant in (CALLBACK, PUBLISHED, STOPPED, DEACTIVATED):
        aiocop = importlib.import_module("aiocop")
        aiocop.patch_audit_functions()
        aiocop.start_blocking_io_detection()
        aiocop.detect_slow_tasks(threshold_ms=30, on_slow_task=counted)
    elif variant == SHIPPING:
        # Without a budget: what full detail costs is what is asked.
        importlib.import_module("aiocop").start(
            service="benchmark", collector=os.environ[COLLECTOR_VARIABLE], overhead_budget_percent=0
        )
    return counted


def activate(variant: str) -> None:
    """Inside the running loop."""
    if variant in (CALLBACK, PUBLISHED, STOPPED, DEACTIVATED):
        importlib.import_module("aiocop").activate()


def end_early(variant: str) -> None:
    """For what is measured after it was switched off."""
    if variant == STOPPED:
        importlib.import_module("aiocop").stop(0)
    elif variant == DEACTIVATED:
        importlib.import_module("aiocop").deactivate()
