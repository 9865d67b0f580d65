"""The ids of OpenTelemetry's active span in the context of events, by its real SDK."""

import asyncio
import subprocess
import sys
import time

from opentelemetry.sdk.trace import TracerProvider
from tests.support.detecting import slow

import aiocop
from aiocop.opentelemetry_context import active_span


def test_the_active_span_is_in_the_context_of_what_blocked_in_it(tmp_path):
    tracer = TracerProvider().get_tracer("test")
    spans = []
    events = []

    async def traced():
        with tracer.start_as_current_span("checkout") as span:
            spans.append(span.get_span_context())
            await asyncio.sleep(0)
            time.sleep(0.06)

    async def main():
        await asyncio.gather(traced(), traced())
        await asyncio.create_task(untraced())

    async def untraced():
        time.sleep(0.06)

    aiocop.start("shop", collector=f"unix://{tmp_path}/nobody.sock", on_slow_task=events.append)
    try:
        asyncio.run(main())
    finally:
        aiocop.stop(0)
        aiocop.clear_slow_task_callbacks()
    assert [event.context for event in slow(events)] == [
        *[{"trace_id": format(span.trace_id, "032x"), "span_id": format(span.span_id, "016x")} for span in spans],
        {},
    ]
    assert active_span() is None


def test_opentelemetry_is_never_imported():
    source = """
import asyncio, sys, time
import aiocop

async def main():
    time.sleep(0.06)

events = []
aiocop.start("shop", collector="unix:///nowhere/nobody.sock", on_slow_task=events.append)
asyncio.run(main())
aiocop.stop(0)
assert [event.context for event in events if event.exceeded_threshold] == [{}], events
assert "opentelemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True)
