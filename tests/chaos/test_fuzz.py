"""A fuzzer that is guided by coverage finds no bytes that break what reads untrusted bytes."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]

_PROGRAM = Path(__file__).with_name("fuzz_decode.py")


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_a_fuzzer_guided_by_coverage_breaks_nothing(tmp_path, extent, chance):
    seed = chance.randrange(1, 1 << 31)
    command = [sys.executable, str(_PROGRAM), f"-runs={extent.hostile_messages}", f"-seed={seed}", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    covered = [int(number) for number in re.findall(r"cov: (\d+)", done.stderr)]
    assert covered[-1] > covered[0], "it was blind: nothing it tried reached anything new"
