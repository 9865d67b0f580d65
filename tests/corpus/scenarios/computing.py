"""What a freeze can be: CPU, in Python and in native code that holds the GIL or releases it."""

import asyncio
import csv
import gc
import hashlib
import json
import pickle
import random
import re
import textwrap
import time
import zlib

from tests.corpus.scenario import freezes, stopwatch

CPU = {"cause": "cpu"}
_RANDOM = random.Random(1)


def a_document():
    return json.dumps([{"number": number, "text": str(number)} for number in range(150_000)])


def numbers():
    return [_RANDOM.random() for _ in range(300_000)]


def a_lot():
    return _RANDOM.randbytes(3_000_000)


@freezes("pure-Python CPU", **CPU)
async def python_loop():
    deadline = time.thread_time() + 0.08
    with stopwatch:
        while time.thread_time() < deadline: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip


@freezes("pure-Python CPU after a short `open`", **CPU)
async def after_a_short_open():
    with open("/dev/null"):
        pass
    deadline = time.thread_time() + 0.06
    with stopwatch:
        while time.thread_time() < deadline: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip


@freezes("pure-Python CPU below a deep recursion", **CPU)
async def below_a_recursion():
    def dive(depth):
        if depth:
            return dive(depth - 1)
        deadline = time.thread_time() + 0.08
        with stopwatch:
            while time.thread_time() < deadline: pass  # <- culprit  # noqa: E701 - one line to name  # fmt: skip
        return None

    await asyncio.sleep(0)
    dive(60)


def numbers_in_text():
    return "".join(map("{:08}".format, range(15_000)))


@freezes("CPU in the standard library's Python, at its caller", prepare=numbers_in_text, **CPU)
async def in_the_standard_library(text):
    await asyncio.sleep(0)
    with stopwatch:
        textwrap.wrap(text, 8)  # <- culprit


@freezes("a regular expression", **CPU)
async def regular_expression():
    pattern = re.compile(r"(a+)+b")
    await asyncio.sleep(0)
    with stopwatch:
        pattern.search("a" * 22)  # <- culprit


@freezes("sorting", prepare=numbers, **CPU)
async def sorting(unsorted):
    await asyncio.sleep(0)
    with stopwatch:
        sorted(unsorted)  # <- culprit


@freezes("parsing JSON", prepare=a_document, **CPU)
async def json_loads(text):
    await asyncio.sleep(0)
    with stopwatch:
        json.loads(text)  # <- culprit


@freezes("writing JSON", prepare=lambda: json.loads(a_document()), **CPU)
async def json_dumps(document):
    await asyncio.sleep(0)
    with stopwatch:
        json.dumps(document)  # <- culprit


@freezes("pickling", prepare=lambda: json.loads(a_document()), **CPU)
async def pickling(document):
    await asyncio.sleep(0)
    with stopwatch:
        pickle.loads(pickle.dumps(document))  # <- culprit


def lines_of_numbers():
    gc.disable()  # many small lists: the collector's pauses have a scenario of their own
    return ["1,2,3,4,5,6,7,8"] * 200_000


@freezes("parsing CSV", prepare=lines_of_numbers, **CPU)
async def parsing_csv(lines):
    await asyncio.sleep(0)
    with stopwatch:
        list(csv.reader(lines))  # <- culprit


@freezes("an integer's power", **CPU)
async def integer_power():
    await asyncio.sleep(0)
    with stopwatch:
        pow(3, 1_200_000)  # <- culprit


@freezes("zlib, which releases the GIL", prepare=a_lot, **CPU)
async def compressing(data):
    await asyncio.sleep(0)
    with stopwatch:
        zlib.compress(data)  # <- culprit


@freezes("hashing, which releases the GIL", **CPU)
async def hashing():
    await asyncio.sleep(0)
    with stopwatch:
        hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 150_000)  # <- culprit


@freezes("NumPy", requires=("numpy",), prepare=lambda: __import__("numpy").random.rand(900, 900), **CPU)
async def numpy_product(matrix):
    await asyncio.sleep(0)
    with stopwatch:
        (matrix @ matrix).sum(); matrix.argsort(axis=None)  # <- culprit  # noqa: E702 - one line to name  # fmt: skip
