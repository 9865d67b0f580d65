"""Where the culprit stands: whose code is whose, and how much of somebody else's lies on top."""

import asyncio
import importlib
import sys
import tempfile
from pathlib import Path

from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}
LIBRARY = """
import time

def sleep(seconds, depth=100):
    return sleep(seconds, depth - 1) if depth else time.sleep(seconds)
"""


def deep_library():
    """An installed package that calls itself a hundred times, which is more than any limit keeps."""
    folder = Path(tempfile.mkdtemp()) / "site-packages"
    folder.mkdir()
    (folder / "deep_library.py").write_text(LIBRARY)
    sys.path.insert(0, str(folder))
    return importlib.import_module("deep_library")


@freezes("a hundred frames of a library on top", prepare=deep_library, **SLEEP)
async def below_a_library(library):
    await asyncio.sleep(0)
    with stopwatch:
        library.sleep(0.06)  # <- culprit
