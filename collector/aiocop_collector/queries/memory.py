"""All that a collector remembers between questions."""

from aiocop_collector.queries.fact_memory import FactMemory
from aiocop_collector.queries.span_memory import SpanMemory
from aiocop_collector.queries.sum_memory import SumMemory


class Memory:
    """One per collector. Its parts go by versions in the store, each read in the question's own transaction."""

    def __init__(self) -> None:
        self.spans = SpanMemory()
        self.facts = FactMemory()
        self.sums = SumMemory()
