"""Context providers registered with `before_slices=False`: when they are asked, and when not."""

import asyncio
import time
from contextvars import ContextVar

import pytest
from tests.support.detecting import LOOPS, detecting, slow

import aiocop

_request: ContextVar[str | None] = ContextVar("request", default=None)
_route: ContextVar[str | None] = ContextVar("route", default=None)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_asked_while_nothing_blocks(loop):
    asked = []

    async def main():
        for _ in range(20):
            await asyncio.sleep(0)
        aiocop.unregister_context_provider(provider)

    def provider():
        asked.append(time.monotonic())
        return {}

    with detecting(threshold_ms=60_000):
        aiocop.register_context_provider(provider, before_slices=False)
        LOOPS[loop](main())
    assert asked == []


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_unknown_at_the_first_call_is_added_after_the_slice(loop):
    async def handle():
        _request.set("r-1")
        time.sleep(0.001)
        _request.set("r-2")
        _route.set("/orders")
        time.sleep(0.06)

    async def main():
        await asyncio.create_task(handle())

    with detecting() as events:
        aiocop.register_context_provider(lambda: {"early": _route.get()})
        aiocop.register_context_provider(
            lambda: {key: value for key, value in (("id", _request.get()), ("route", _route.get())) if value},
            before_slices=False,
        )
        LOOPS[loop](main())
    (event,) = slow(events)
    assert event.context == {"early": None, "id": "r-1", "route": "/orders"}


def test_one_that_fails_is_counted_and_the_others_are_heard(caplog):
    async def main():
        time.sleep(0.06)

    def broken():
        raise LookupError("no request")

    with detecting() as events:
        aiocop.register_context_provider(broken, before_slices=False)
        aiocop.register_context_provider(lambda: {"fine": True}, before_slices=False)
        asyncio.run(main())
        assert aiocop.statistics().callback_failures > 0
    assert [event.context for event in slow(events)] == [{"fine": True}]
    assert "no request" in caplog.text
