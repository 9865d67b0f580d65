"""What aiocop-run puts into every Python process: it waits for the first loop, and disturbs nothing and nobody."""

import sys

import pytest
from tests.support.pythons import VERSIONS, python_or_skip
from tests.support.running import clean_environment, path_with, run, run_watched, write_program

from aiocop.run.launcher import BOOTSTRAP_FOLDER, watched

HOW_IT_IS = """
import asyncio, os, sys, threading, time
import uvloop

def how_it_is():
    by_us = [name for name in ("aiocop", "msgpack") if name in sys.modules]
    return by_us, len(os.listdir("/proc/self/task")), type(time.sleep).__name__
"""

FREEZES_FIRST = """
import asyncio, os, sys, threading, time
import uvloop
PYTHONPATH = os.environ["PYTHONPATH"]

async def main():
    time.sleep(0.002)
    await asyncio.sleep(0)

def run_until_complete(make_loop):
    loop = make_loop()
    loop.run_until_complete(main())
    loop.close()

def two_threads(start):
    threads = [threading.Thread(target=start, args=(main(),)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

def reader_before_run(make_loop):
    def ready():
        loop.remove_reader(reading)
        time.sleep(0.002)
        loop.stop()
    loop = make_loop()
    reading, writing = os.pipe()
    os.write(writing, b"x")
    loop.add_reader(reading, ready)
    loop.run_forever()
    loop.close()

WAYS = {
    "asyncio.run": lambda: asyncio.run(main()),
    "uvloop.run": lambda: uvloop.run(main()),
    "asyncio-old": lambda: run_until_complete(asyncio.new_event_loop),
    "uvloop-old": lambda: run_until_complete(uvloop.new_event_loop),
    "asyncio-threads": lambda: two_threads(asyncio.run),
    "uvloop-threads": lambda: two_threads(uvloop.run),
    "asyncio-reader": lambda: reader_before_run(asyncio.new_event_loop),
    "uvloop-reader": lambda: reader_before_run(uvloop.new_event_loop),
}
WAYS[sys.argv[1]]()
# Whatever waited for the loop is gone: what is replaced now is the agent's.
assert asyncio._set_running_loop is asyncio.events._set_running_loop
assert asyncio._set_running_loop.__module__ == "_asyncio", asyncio._set_running_loop
assert not any(type(finder).__name__ == "ImportWatch" for finder in sys.meta_path)
assert os.environ["PYTHONPATH"] == PYTHONPATH
import aiocop
before_stop = aiocop.statistics().recorded
aiocop.stop(0)
assert not {"call_soon", "call_later", "add_reader"} & set(vars(uvloop.Loop))
print(before_stop)
"""


def test_a_program_without_a_loop_is_left_alone(tmp_path):
    program = write_program(tmp_path / "program.py", HOW_IT_IS + "print(how_it_is())\n")
    ended = run_watched(program)
    assert (ended.stdout, ended.stderr) == ("([], 1, 'builtin_function_or_method')\n", "")


def test_the_start_of_python_brings_in_nothing(tmp_path):
    """No asyncio, no typing, no threading: what comes is this module and __future__."""
    program = write_program(tmp_path / "program.py", "import sys; print(*sys.modules, sep='\\n')\n")
    with_us = run_watched(program).stdout.split()
    without_us = run(sys.executable, program, environment=clean_environment()).stdout.split()
    assert set(with_us) - set(without_us) <= {"sitecustomize", "__future__"}
    assert "sitecustomize" in with_us


@pytest.mark.parametrize(
    ("way", "freezes"),
    [
        ("asyncio.run", 1),
        ("uvloop.run", 1),
        ("asyncio-old", 1),
        ("uvloop-old", 1),
        ("asyncio-threads", 2),
        ("uvloop-threads", 2),
        ("asyncio-reader", 1),
        ("uvloop-reader", 1),
    ],
)
def test_the_very_first_callback_is_measured(tmp_path, way, freezes):
    # No slice is slow: what is counted are calls, however busy the host is.
    program = write_program(tmp_path / "program.py", FREEZES_FIRST)
    ended = run_watched(program, way, AIOCOP_THRESHOLD_MS="60000")
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) == freezes


def test_asyncio_that_was_imported_earlier_is_met_too(tmp_path):
    """By a .pth file, which is read before any sitecustomize; here by delaying the site module."""
    program = write_program(
        tmp_path / "program.py",
        """
        import asyncio, sys, site
        site.main()
        assert "sitecustomize" in sys.modules
        assert asyncio._set_running_loop is asyncio.events._set_running_loop
        assert asyncio._set_running_loop.__module__ == "sitecustomize"

        async def main():
            import aiocop
            print(aiocop.is_monitoring_active())

        asyncio.run(main())
        assert asyncio._set_running_loop is asyncio.events._set_running_loop
        assert asyncio._set_running_loop.__module__ == "_asyncio"
        """,
    )
    ended = run(sys.executable, "-S", program, environment=watched(clean_environment()))
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_masters_and_helpers_of_multiprocessing_stay_as_they_are(tmp_path):
    """A fork before any loop: the child that runs one has an agent, its parent and the resource tracker have none."""
    program = write_program(
        tmp_path / "program.py",
        HOW_IT_IS
        + """
from multiprocessing import get_context, resource_tracker

async def tell(queue):
    import aiocop
    queue.put((aiocop.is_monitoring_active(), len(os.listdir("/proc/self/task")) > 1))

def work(queue):
    asyncio.run(tell(queue))

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        context = get_context(method)
        queue = context.SimpleQueue()
        worker = context.Process(target=work, args=(queue,))
        worker.start()
        print(method, queue.get())
        worker.join()
    resource_tracker.ensure_running()
    pid = resource_tracker._resource_tracker._pid
    print(open(f"/proc/{pid}/environ").read().count("aiocop/run/bootstrap"))
    print(len(os.listdir(f"/proc/{pid}/task")), "msgpack" in open(f"/proc/{pid}/maps").read())
    print(how_it_is())
""",
    )
    ended = run_watched(program)
    assert ended.stdout.splitlines() == [
        "fork (True, True)",
        "spawn (True, True)",
        "1",
        "1 False",
        "([], 1, 'builtin_function_or_method')",
    ], ended.stderr


@pytest.mark.parametrize(
    "theirs",
    [
        "print('theirs', __file__, sys.modules['sitecustomize'].mark)",
        "import asyncio; print('theirs', asyncio)",
        "raise RuntimeError('theirs is broken')",
        "import no_such_module",
        "1 +",
    ],
)
def test_the_users_own_sitecustomize_runs_as_without_us(tmp_path, theirs):
    write_program(
        tmp_path / "own" / "sitecustomize.py",
        f"import sys\nmark = 1\n{theirs}\nassert 'bootstrap' not in str(sys.path)",
    )
    program = write_program(
        tmp_path / "program.py",
        """
        import sys
        try:
            import sitecustomize
            print(sitecustomize.__file__)
        except Exception as error:
            print(type(error))
        print([entry for entry in sys.path if "bootstrap" not in entry])
        """,
    )
    environment = clean_environment(PYTHONPATH=path_with(tmp_path / "own"))
    with_us = run(sys.executable, program, environment=watched(environment))
    without_us = run(sys.executable, program, environment=environment)
    assert with_us.stdout == without_us.stdout
    assert with_us.stderr == without_us.stderr
    assert with_us.returncode == without_us.returncode
    assert "theirs" in without_us.stdout + without_us.stderr or "no_such" in without_us.stderr or "1 +" in theirs


def test_python_started_while_we_start_is_left_alone_and_later_ones_are_not(tmp_path):
    """An initialiser that starts Python, which initialises, …: nothing that start() calls may see our folder."""
    write_program(
        tmp_path / "own" / "sitecustomize.py",
        """
        import logging, os

        class Tells(logging.Handler):
            def emit(self, record):
                if "watches" in record.getMessage():
                    print("at start", "bootstrap" in os.environ.get("PYTHONPATH", ""))

        logging.getLogger("aiocop").addHandler(Tells(logging.INFO))
        logging.getLogger("aiocop").setLevel(logging.INFO)
        logging.getLogger("aiocop").propagate = False
        """,
    )
    program = write_program(
        tmp_path / "program.py",
        """
        import asyncio, os
        async def main():
            print("in the loop", os.environ["PYTHONPATH"].split(os.pathsep)[0])
            os._exit(0) if os.sys.stdout.flush() else None
        asyncio.run(main())
        """,
    )
    ended = run_watched(program, PYTHONPATH=path_with(tmp_path / "own"))
    assert ended.stdout.splitlines()[0] == "at start False"
    assert f"in the loop {BOOTSTRAP_FOLDER}" in ended.stdout


def test_a_fault_of_ours_is_one_line_and_the_program_runs(tmp_path):
    write_program(tmp_path / "broken" / "aiocop" / "__init__.py", "raise RuntimeError('cannot be')")
    program = write_program(
        tmp_path / "program.py",
        """
        import asyncio
        async def main():
            print("works")
        asyncio.run(main())
        asyncio.run(main())
        """,
    )
    ended = run_watched(program, PYTHONPATH=path_with(tmp_path / "broken"))
    assert (ended.returncode, ended.stdout) == (0, "works\nworks\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("aiocop-run: process ")
    assert line.endswith("is not watched: RuntimeError: cannot be")


@pytest.mark.parametrize("version", VERSIONS)
def test_another_python_without_aiocop_runs_and_says_so_once(tmp_path, version):
    """A tool that the watched service starts, on a Python of its own."""
    python = python_or_skip(version)
    program = write_program(
        tmp_path / "program.py",
        """
        import asyncio
        async def main():
            print("works")
        asyncio.run(main())
        """,
    )
    environment = watched(clean_environment(PYTHONPATH=""))
    ended = run(python, "-s", program, environment=environment)
    assert (ended.returncode, ended.stdout) == (0, "works\n")
    (line,) = ended.stderr.splitlines()
    assert line.endswith("is not watched: ModuleNotFoundError: No module named 'aiocop'")
    assert run(python, "-c", "print(1)", environment=environment).stderr == ""
