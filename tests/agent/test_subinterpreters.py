"""In a sub-interpreter: no error, no hang, no noise; in an isolated one, which may have no daemon threads, without."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_INSIDE = """
    import asyncio, logging, sys, time

    sys.path[:0] = {path!r}
    import aiocop

    async def freeze():
        time.sleep(0.06)

    async def main():
        tell = lambda event: print("event", round(event.elapsed_ms) >= 60, flush=True)
        aiocop.start(service="inside", collector="unix:///nowhere/c.sock", threshold_ms=20, on_slow_task=tell)
        await asyncio.create_task(freeze())
        await asyncio.sleep(0)
        print("recorded", aiocop.statistics().recorded, "ships", aiocop.statistics().connection != "off", flush=True)

    asyncio.run(main())
    aiocop.stop(0.1)
    print("stopped", flush=True)
"""
_OUTSIDE = """
    import sys

    try:
        import _interpreters as interpreters
        made = interpreters.create(sys.argv[1])
        run = interpreters.exec
    except ImportError:
        import _xxsubinterpreters as interpreters
        made = interpreters.create(isolated=sys.argv[1] == "isolated")
        run = interpreters.run_string
    failed = run(made, sys.argv[2])
    if failed is not None:
        print(failed)
    interpreters.destroy(made)
"""


def run_inside(kind: str, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(_OUTSIDE), kind, code]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent)


@pytest.mark.parametrize(("kind", "ships"), [("legacy", True), ("isolated", False)])
def test_it_works_as_far_as_it_is_allowed_to(kind, ships):
    if run_inside(kind, "import asyncio").returncode != 0:
        pytest.skip("this CPython crashes over asyncio in a sub-interpreter, with or without us")  # 3.12.1 does
    done = run_inside(kind, textwrap.dedent(_INSIDE).format(path=sys.path))
    assert (done.returncode, done.stdout.splitlines()) == (0, ["event True", f"recorded 1 ships {ships}", "stopped"])
    complaints = [line for line in done.stderr.splitlines() if "no collector can be reached" not in line]
    if ships:
        assert complaints == []
    else:
        assert [line.partition(",")[0] for line in complaints] == [
            "aiocop takes no CPU samples",
            "aiocop ships nothing",
        ]
