"""Replaced functions behave like the ones they stand for, and stop() gives every one of them back."""

import asyncio
import builtins
import copy
import inspect
import io
import os
import pickle
import socket
import subprocess
import threading
import time

import pytest
from tests.support.detecting import detecting

import aiocop


@pytest.fixture
def wrapped():
    with detecting():
        yield


@pytest.mark.usefixtures("wrapped")
def test_a_wrapped_builtin_does_not_turn_into_a_method():
    class Keeper:
        nap = time.sleep
        look = os.stat

    assert Keeper().nap(0) is None
    assert Keeper().look("/").st_ino == os.lstat("/").st_ino


@pytest.mark.usefixtures("wrapped")
def test_wrapped_functions_pickle_by_name():
    for function in (time.sleep, os.stat, open, os.getcwd, socket.getaddrinfo, subprocess.Popen):
        assert pickle.loads(pickle.dumps(function)) == function
        assert copy.deepcopy(function) == function


@pytest.mark.usefixtures("wrapped")
def test_wrapped_functions_keep_name_doc_and_signature():
    assert time.sleep.__name__ == "sleep"
    assert time.sleep.__doc__.startswith("sleep(")
    assert "flags" in inspect.signature(os.open).parameters
    assert socket.socket.connect.__qualname__.endswith("connect")
    assert builtins.open is not None
    with io.open(os.devnull) as file:  # noqa: UP020 - the other name of the same function
        assert file.read() == ""


@pytest.mark.usefixtures("wrapped")
def test_exceptions_and_results_pass_through():
    async def fails():
        with pytest.raises(FileNotFoundError):
            open("/no/such/file")
        return os.getcwd()

    assert asyncio.run(fails()) == os.getcwd()


def test_stop_gives_back_what_somebody_else_replaced_only_if_it_is_still_ours():
    original = time.sleep
    with detecting():
        ours = time.sleep
        assert ours is not original

        def theirs(seconds):
            return ours(seconds)

        time.sleep = theirs
    try:
        assert time.sleep is theirs
        time.sleep(0)
        assert os.stat is not None
    finally:
        time.sleep = original


def test_set_up_again_after_stop_takes_new_settings():
    for threshold_ms in (10, 70):
        with detecting(threshold_ms=threshold_ms):
            assert aiocop.get_slow_task_threshold_ms() == threshold_ms
            assert "time.sleep" in aiocop.get_patched_functions()
    assert aiocop.get_patched_functions() == []


def test_repeated_set_up_warns_and_changes_nothing(caplog):
    with detecting(threshold_ms=10):
        aiocop.patch_audit_functions()
        aiocop.start_blocking_io_detection(trace_depth=1)
        aiocop.detect_slow_tasks(threshold_ms=99)
        aiocop.start_cpu_sampling(interval_ms=99)
        assert aiocop.get_slow_task_threshold_ms() == 10
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"{name} called more than once, ignoring"
        for name in ("patch_audit_functions", "start_blocking_io_detection", "detect_slow_tasks", "start_cpu_sampling")
    ]


def test_non_blocking_sockets_are_not_counted():
    async def talk():
        left, right = socket.socketpair()
        left.setblocking(False)
        left.send(b"x")
        before = aiocop.statistics().recorded
        left.send(b"x")
        right.settimeout(1)
        assert aiocop.statistics().recorded == before
        right.recv(2)
        counted = aiocop.statistics().recorded
        left.close()
        right.close()
        return counted - before

    with detecting():
        assert asyncio.run(talk()) == 1


def test_nested_calls_each_count_and_share_their_time():
    async def nested():
        with open("/proc/self/stat") as file:
            os.path.ismount("/")
            return file.read()

    with detecting() as events:
        asyncio.run(nested())
    calls = [call for event in events for call in event.blocking_events]
    names = [call["event"].partition("(")[0] for call in calls]
    assert names[:2] == ["open", "os.path.ismount"]
    assert "os.lstat" in names
    for event in events:
        assert sum(call["duration_ms"] or 0 for call in event.blocking_events) <= event.elapsed_ms


def test_a_slice_in_a_forked_child_is_the_childs():
    """The child counts from zero; what the parent counted stays the parent's."""

    async def main():
        time.sleep(0)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            recorded = aiocop.statistics().recorded
            os.write(writer, str(recorded).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        answer = os.read(reader, 10)
        os.close(reader)
        return answer

    with detecting():
        before = aiocop.statistics().recorded
        assert asyncio.run(main()) == b"0"
        assert aiocop.statistics().recorded > before
        assert [thread.name for thread in threading.enumerate() if "aiocop" in thread.name] == ["aiocop-cpu-sampler"]
