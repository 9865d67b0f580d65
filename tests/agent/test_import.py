"""What `import aiocop` brings into a process that has asyncio: each module costs every service time."""

import subprocess
import sys

WORTH_IT = {"__future__", "bisect", "copy", "dataclasses", "datetime", "fnmatch", "gc", "mmap"}
WORTH_IT |= {"_bisect", "_blake2", "_datetime"}  # where these are no part of the interpreter
LOADED_WHEN_NEEDED = {"aiocop.shipping.udp_transport", "aiocop.shipping.datagrams", "aiocop_wire.seal", "hmac"}

NEW_MODULES = """
import asyncio, sys
before = set(sys.modules)
import aiocop
print(*set(sys.modules) - before)
"""
UDP = """
import aiocop
aiocop.start("shop", collector="udp://127.0.0.1:9")
aiocop.stop(0)
import sys
print(*sys.modules)
"""


def modules_after(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_import_brings_nothing_that_few_need():
    new = modules_after(NEW_MODULES)
    assert "aiocop.agent" in new
    ours = {name for name in new if name.partition(".")[0] in ("aiocop", "aiocop_wire")}
    codec = {name for name in new if name.partition(".")[0] == "msgpack" or "cython" in name}
    assert new - ours - codec <= WORTH_IT
    assert not ours & LOADED_WHEN_NEEDED


def test_what_datagrams_need_comes_with_their_collector():
    assert modules_after(UDP) >= LOADED_WHEN_NEEDED
