"""One door per package: what a package exports is what `__all__` says, sorted, and all of it is there."""

import types

import pytest

import aiocop
import aiocop_collector
import aiocop_wire

PUBLISHED = """
patch_audit_functions start_blocking_io_detection detect_slow_tasks start_cpu_sampling is_cpu_sampling_started
activate deactivate is_monitoring_active enable_raise_on_violations disable_raise_on_violations
is_raise_on_violations_enabled raise_on_violations register_slow_task_callback unregister_slow_task_callback
clear_slow_task_callbacks register_context_provider unregister_context_provider clear_context_providers
ContextProvider reset_blocking_events format_blocking_event get_patched_functions get_blocking_events_dict
get_slow_task_threshold_ms calculate_io_severity_score get_severity_level_from_score BlockingEventInfo
CpuStackSample RawBlockingEvent SlowTaskEvent SlowTaskCallback IoSeverityLevel HighSeverityBlockingIoException
WEIGHT_HEAVY WEIGHT_MODERATE WEIGHT_LIGHT WEIGHT_TRIVIAL THRESHOLD_HIGH THRESHOLD_MEDIUM THRESHOLD_LOW
""".split()  # noqa: SIM905 - a list of quoted names is harder to read


@pytest.mark.parametrize("package", [aiocop, aiocop_wire, aiocop_collector], ids=lambda package: package.__name__)
def test_exported_members(package):
    visible = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    exported = set(getattr(package, "__all__", ()))
    assert visible - {"warn_if_published_aiocop_is_installed"} == exported - {"__version__"}
    assert all(hasattr(package, name) for name in exported)


def test_every_published_name_is_there():
    assert set(PUBLISHED) <= set(aiocop.__all__)
