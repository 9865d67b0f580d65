"""The leak checks of conftest.py see what they are there for."""

import os
import subprocess
import threading
import time

from tests.support.leaks import callables, child_processes, open_descriptors, replaced, running_threads


def test_a_running_thread_is_seen():
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="left-over", daemon=True)
    thread.start()
    try:
        assert "left-over" in running_threads().values()
    finally:
        release.set()
        thread.join()
    assert "left-over" not in running_threads().values()


def test_an_open_descriptor_is_seen():
    before = open_descriptors()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        assert set(open_descriptors()) - set(before) == {descriptor}
    finally:
        os.close(descriptor)
    assert open_descriptors() == before


def test_a_child_process_is_seen():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert child.pid in child_processes()
    assert child.pid not in child_processes()


def test_a_replaced_function_is_seen():
    before = callables()
    original = time.sleep
    time.sleep = print
    try:
        assert replaced(before) == ["function time.sleep (replaced)"]
    finally:
        time.sleep = original
    assert replaced(before) == []
