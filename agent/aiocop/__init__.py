"""Finds what freezes asyncio event loops, and tells a collector about it.

    import aiocop

    aiocop.start(service="shop")

From then on every stretch of time in which an event loop of this process (asyncio or uvloop) was frozen is measured,
blamed on the line of application code that froze it, counted, and shipped to `aiocop-collector`; see docs/.
"""

from aiocop.agent import Agent
from aiocop.allowing import AllowBlocking, AllowRule
from aiocop.api import (
    activate,
    allow,
    allow_blocking,
    clear_context_providers,
    clear_slow_task_callbacks,
    deactivate,
    detect_slow_tasks,
    disable_raise_on_violations,
    disallow,
    enable_raise_on_violations,
    flush,
    get_blocking_events_dict,
    get_patched_functions,
    get_slow_task_threshold_ms,
    is_cpu_sampling_started,
    is_monitoring_active,
    is_raise_on_violations_enabled,
    patch_audit_functions,
    raise_on_violations,
    register_context_provider,
    register_operation,
    register_slow_task_callback,
    reset_blocking_events,
    start,
    start_blocking_io_detection,
    start_cpu_sampling,
    statistics,
    stop,
    unregister_context_provider,
    unregister_slow_task_callback,
)
from aiocop.config import Configuration
from aiocop.errors import ConfigurationError, HighSeverityBlockingIoException
from aiocop.event_types import BlockingEventInfo, CpuStackSample, IoSeverityLevel, RawBlockingEvent, SlowTaskEvent
from aiocop.events import ContextProvider, SlowTaskCallback, format_blocking_event
from aiocop.published import warn_if_published_aiocop_is_installed
from aiocop.severity import (
    THRESHOLD_HIGH,
    THRESHOLD_LOW,
    THRESHOLD_MEDIUM,
    WEIGHT_HEAVY,
    WEIGHT_LIGHT,
    WEIGHT_MODERATE,
    WEIGHT_TRIVIAL,
    calculate_io_severity_score,
    get_severity_level_from_score,
)
from aiocop.shipping.scrubbing import Scrub
from aiocop.statistics import Statistics
from aiocop_wire import __version__

__all__ = [
    "THRESHOLD_HIGH",
    "THRESHOLD_LOW",
    "THRESHOLD_MEDIUM",
    "WEIGHT_HEAVY",
    "WEIGHT_LIGHT",
    "WEIGHT_MODERATE",
    "WEIGHT_TRIVIAL",
    "Agent",
    "AllowBlocking",
    "AllowRule",
    "BlockingEventInfo",
    "Configuration",
    "ConfigurationError",
    "ContextProvider",
    "CpuStackSample",
    "HighSeverityBlockingIoException",
    "IoSeverityLevel",
    "RawBlockingEvent",
    "Scrub",
    "SlowTaskCallback",
    "SlowTaskEvent",
    "Statistics",
    "__version__",
    "activate",
    "allow",
    "allow_blocking",
    "calculate_io_severity_score",
    "clear_context_providers",
    "clear_slow_task_callbacks",
    "deactivate",
    "detect_slow_tasks",
    "disable_raise_on_violations",
    "disallow",
    "enable_raise_on_violations",
    "flush",
    "format_blocking_event",
    "get_blocking_events_dict",
    "get_patched_functions",
    "get_severity_level_from_score",
    "get_slow_task_threshold_ms",
    "is_cpu_sampling_started",
    "is_monitoring_active",
    "is_raise_on_violations_enabled",
    "patch_audit_functions",
    "raise_on_violations",
    "register_context_provider",
    "register_operation",
    "register_slow_task_callback",
    "reset_blocking_events",
    "start",
    "start_blocking_io_detection",
    "start_cpu_sampling",
    "statistics",
    "stop",
    "unregister_context_provider",
    "unregister_slow_task_callback",
]

warn_if_published_aiocop_is_installed()
