"""Counting without locks loses nothing, however readers and writers interleave."""

import asyncio
import threading
import time

import pytest
from tests.support.detecting import detecting, run_tasks

import aiocop
from aiocop import aggregate as aggregate_module
from aiocop import traces as traces_module
from aiocop.aggregate import Aggregate
from aiocop.catalogue import CPU
from aiocop.frames import FrameNames, module_path
from aiocop.loop_thread import LoopThread
from aiocop.loops import RUNNER_MODULE
from aiocop.traces import Traces
from aiocop_wire import FRAME_APPLICATION, Frame


@pytest.fixture
def traces():
    return Traces(FrameNames(runner_module=RUNNER_MODULE))


def site(traces, name):
    frame = Frame(f"shop/{name}.py", 7, name, FRAME_APPLICATION)
    return traces._add_site(CPU, (frame,), hash(name) & 0xFFFF)


def test_takes_while_threads_count_add_up_exactly(traces):
    """Four loop threads count as fast as they can while another takes: the windows' sums are the threads' totals."""
    aggregate = Aggregate(traces)
    sites = [site(traces, f"f{number}") for number in range(5)]
    rounds = 20_000
    threads = []

    def count(number):
        thread = LoopThread()
        aggregate.add_table(number, thread)
        thread.started_ns = number + 1
        for value in range(rounds):
            thread.record(thread.counters(sites[value % 5], aggregate.other), value * 1_000)
        thread.clock.close()
        aggregate.retire_table(number)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    windows = []
    while any(thread.is_alive() for thread in threads):
        windows.append(aggregate.take())
    windows.append(aggregate.take())
    windows.append(aggregate.take())
    deltas = [delta for window in windows for delta in window.deltas]
    assert sum(delta.count for delta in deltas) == aggregate.recorded() == 4 * rounds
    assert sum(delta.blocked_us for delta in deltas) == 4 * sum(range(rounds))
    assert sum(sum(delta.bins[1::2]) for delta in deltas) == 4 * rounds
    assert max(delta.max_us for delta in deltas) == rounds - 1
    assert windows[-1].deltas == ()


def test_the_longest_time_of_each_window_is_its_own(traces):
    aggregate = Aggregate(traces)
    thread = LoopThread()
    aggregate.add_table(1, thread)
    counters = thread.counters(site(traces, "f"), aggregate.other)
    longest = []
    for value_ms in (5, 3, 9):
        thread.record(counters, value_ms * 1_000_000)
        thread.record(counters, 1_000_000)
        longest.append(aggregate.take().deltas[0].max_us)
    thread.clock.close()
    assert longest == [5_000, 3_000, 9_000]


def test_more_sites_than_fit_are_counted_at_other(traces, monkeypatch):
    monkeypatch.setattr(aggregate_module, "MAX_SITES_PER_THREAD", 10)
    aggregate = Aggregate(traces)
    thread = LoopThread()
    aggregate.add_table(1, thread)
    for number in range(25):
        thread.record(thread.counters(site(traces, f"g{number}"), aggregate.other), 1_000)
    thread.clock.close()
    deltas = {delta.site_id: delta.count for delta in aggregate.take().deltas}
    assert len(deltas) == 11
    assert deltas[aggregate.other.definition.site_id] == 15


def test_threads_that_come_and_go_leave_their_counts_and_nothing_else():
    async def naps():
        time.sleep(0.0001)

    with detecting():
        for _ in range(30):
            thread = threading.Thread(target=run_tasks, args=("asyncio", naps))
            thread.start()
            thread.join()
        assert aiocop.statistics().recorded == 30


def test_a_site_keeps_its_fingerprint_when_code_moves(traces, tmp_path):
    """Lines above the function, and another folder, change nothing; a line inside of it does."""
    found = []
    for folder, before, inside in (("a", "", ""), ("b", "\n\n# moved\n", ""), ("c", "", "    x = 1\n")):
        file = tmp_path / folder / "orders.py"
        file.parent.mkdir()
        file.write_text(f"import sys\n{before}def create():\n{inside}    return sys._getframe()\n")
        namespace = {"__name__": "shop.orders", "__file__": str(file)}
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        frame = namespace["create"]()
        found.append(traces.site(CPU, traces.stack(frame, 1)).definition)
    assert found[0].frames[0].path == "shop/orders.py"
    assert found[0].frames[0].function == "create"
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint


@pytest.mark.parametrize(
    ("module", "filename", "path"),
    [
        ("shop.orders", "/srv/app/shop/orders.py", "shop/orders.py"),
        ("shop", "/srv/app/shop/__init__.py", "shop/__init__.py"),
        ("__main__", "/srv/app/serve.py", "serve.py"),
        ("importlib._bootstrap", "<frozen importlib._bootstrap>", "importlib/_bootstrap.py"),
        (None, "/srv/app/loose.py", "loose.py"),
        ("shop.models", "<string>", "<string>"),
    ],
)
def test_paths_are_module_paths(module, filename, path):
    assert module_path(module, filename) == path


def test_user_code_in_a_folder_named_after_us_is_user_code(tmp_path):
    folder = tmp_path / "aiocop_tools"
    folder.mkdir()
    (folder / "work.py").write_text("import time\n\nasync def nap():\n    time.sleep(0.0005)\n")
    namespace = {"__name__": "aiocop_tools.work"}
    exec(compile((folder / "work.py").read_text(), str(folder / "work.py"), "exec"), namespace)
    with detecting() as events:
        asyncio.run(namespace["nap"]())
    assert events[0].blocking_events[0]["call_site"] == "aiocop_tools/work.py:4:nap"


def test_generated_code_without_end_is_described_together(traces, monkeypatch):
    monkeypatch.setattr(traces_module, "MAX_SITES", 10)
    sites = {site(traces, f"generated{number}").call_site for number in range(50)}
    assert "<other>" in sites
    assert len(sites) <= 12
