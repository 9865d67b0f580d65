"""Faults for real processes. CHAOS=long (`make test-chaos`) makes of each the long form."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.support.collector import CollectorProcess, run_collector


@dataclass(frozen=True)
class Extent:
    """How much of it."""

    kills: int
    agents: int
    crowd: int
    lock_s: float
    hostile_messages: int
    database_deaths: int


SHORT = Extent(kills=5, agents=3, crowd=20, lock_s=2.0, hostile_messages=20_000, database_deaths=2)
LONG = Extent(kills=50, agents=8, crowd=100, lock_s=60.0, hostile_messages=1_000_000, database_deaths=25)


@pytest.fixture
def extent() -> Extent:
    return LONG if os.environ.get("CHAOS") == "long" else SHORT


@pytest.fixture
def chance() -> random.Random:
    """Seeded; a failing test prints the seed, CHAOS_SEED gives it again."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def collector(tmp_path) -> Iterator[CollectorProcess]:
    with run_collector(tmp_path) as running:
        yield running
