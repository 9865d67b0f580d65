"""The agent's end of the heartbeat: a sealed, locked file whose words loops' threads may always write."""

import asyncio
import fcntl
import os
import struct
import time

import pytest
from tests.support.waiting import DEADLINE_S, wait_until

import aiocop
from aiocop import heartbeat as heartbeat_module
from aiocop.heartbeat import open_heartbeat, private_slot
from aiocop_wire import decode, read_heartbeat
from aiocop_wire.heartbeat import BEGUN, FINISHED, MAX_SLOTS, PAGE_BYTES, TEXT_BYTES, read_text, text_at

_FLOCK = struct.Struct("@hhqqi4x")


@pytest.fixture
def heartbeat():
    opened = open_heartbeat(10**9)
    assert opened is not None, "this system has memory files and locks"
    yield opened
    opened.close()


def locked_for_a_child(descriptor: int) -> bool:
    """Whether another process finds the lock held: a forked child is one, and has inherited the descriptor."""
    pid = os.fork()
    if pid == 0:
        asked = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
        os._exit(_FLOCK.unpack(asked)[0] != fcntl.F_UNLCK)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_it_is_locked_for_others_and_a_child_that_closes_it_does_not_unlock_it(heartbeat):
    assert locked_for_a_child(heartbeat.descriptor)
    pid = os.fork()
    if pid == 0:
        heartbeat.abandon()
        os._exit(0)
    os.waitpid(pid, 0)
    assert locked_for_a_child(heartbeat.descriptor)


def test_nobody_can_shrink_or_grow_it(heartbeat):
    for size in (0, PAGE_BYTES, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(heartbeat.descriptor, size)


def test_threads_past_the_last_place_write_where_nobody_reads(heartbeat):
    slots = [heartbeat.slot(ident) for ident in range(MAX_SLOTS + 1)]
    for number, (words, _) in enumerate(slots):
        words[BEGUN] = 100 + number
    running = read_heartbeat(os.pread(heartbeat.descriptor, PAGE_BYTES, 0)).running
    assert {item.slice_ns for item in running} == {100 + number for number in range(MAX_SLOTS)}
    heartbeat.leave(5)
    heartbeat.leave(MAX_SLOTS)
    fresh, _ = heartbeat.slot(900)
    assert fresh.tolist() == [0] * 8


def test_words_stay_writable_after_it_is_closed(heartbeat):
    words, text = heartbeat.slot(1)
    words[BEGUN] = 7
    heartbeat.close()
    words[BEGUN] = 8
    text[0] = 1
    assert heartbeat.slot(2).words.tolist() == private_slot().words.tolist()


def test_without_memory_files_there_is_none(monkeypatch):
    monkeypatch.delattr(heartbeat_module.os, "memfd_create")
    assert open_heartbeat(10**9) is None


def test_while_slices_run_it_says_so_and_afterwards_that_they_ended(tmp_path):
    agent = aiocop.start(service="beating", collector=f"unix://{tmp_path}/nobody.sock")

    def running():
        heartbeat = agent._slices.heartbeat
        return read_heartbeat(os.pread(heartbeat.descriptor, PAGE_BYTES, 0)).running

    async def main():
        await asyncio.sleep(0)
        before_ns = time.monotonic_ns()
        mine = running()
        assert len(mine) == 1
        assert before_ns - 10**10 < mine[0].slice_ns <= before_ns
        # Idle for the loop: everything that ran is marked as ended soon, and stays so.
        await asyncio.to_thread(wait_until, lambda: not running(), "the watchdog marks the end")

    try:
        asyncio.run(main())
        wait_until(lambda: agent._watchdog.parked, "the watchdog parks")
        assert not running()
        thread = next(iter(agent._slices.threads.values()))
        assert thread.beat[BEGUN] == thread.beat[FINISHED] != 0
    finally:
        aiocop.stop(0.1)


def test_where_a_slice_is_seen_is_told_with_its_text(tmp_path):
    agent = aiocop.start(service="beating", collector=f"unix://{tmp_path}/nobody.sock")

    def seen():
        """The place on the page, as a collector finds it that was told of nothing."""
        descriptor = agent._slices.heartbeat.descriptor
        (running,) = read_heartbeat(os.pread(descriptor, PAGE_BYTES, 0)).running
        text = read_text(os.pread(descriptor, TEXT_BYTES, text_at(running.slot)))
        return [site for site in decode(text).sites if site.site_id == running.site_id] if text else []

    async def computes():
        await asyncio.sleep(0)
        deadline_s = time.monotonic() + DEADLINE_S
        found = []
        # Not where it was seen while it looked.
        while not found and time.monotonic() < deadline_s:
            for _ in range(20):
                sum(range(300_000))
            found = [site for site in seen() if site.frames[-1].function.endswith(".computes")]
        return found

    try:
        (site,) = asyncio.run(computes())
    finally:
        aiocop.stop(0.1)
    assert site.operation == "cpu"
