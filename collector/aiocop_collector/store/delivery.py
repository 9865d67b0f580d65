"""Exactly once: which reports of an agent are new, and how many never came.

On a stream reports come in order, so one number says what was applied. Datagrams come in any order, twice, or never, so
the sequences applied are kept as ranges. Either way `received + lost` is the highest sequence heard of.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

MAX_RANGES: Final = 256
"""Gaps in a datagram stream that are still open to a late arrival. Past that the oldest gap is closed: what is missing
in it stays counted as lost, and arrives in vain."""


class Ranges:
    """A set of positive integers as sorted, disjoint, non-adjacent `[first, last]` pairs."""

    def __init__(self, pairs: Iterable[Iterable[int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in pairs:
            self._firsts.append(first)
            self._lasts.append(last)

    def pairs(self) -> list[list[int]]:
        return [list(pair) for pair in zip(self._firsts, self._lasts, strict=True)]

    @property
    def highest(self) -> int:
        """0 when empty."""
        return self._lasts[-1] if self._lasts else 0

    def add(self, number: int) -> bool:
        """Whether `number` was not in the set before."""
        firsts, lasts = self._firsts, self._lasts
        after = bisect_right(firsts, number)
        before = after - 1
        if before >= 0 and number <= lasts[before]:
            return False
        touches_before = before >= 0 and lasts[before] == number - 1
        touches_after = after < len(firsts) and firsts[after] == number + 1
        if touches_before and touches_after:
            lasts[before] = lasts[after]
            del firsts[after], lasts[after]
        elif touches_before:
            lasts[before] = number
        elif touches_after:
            firsts[after] = number
        else:
            firsts.insert(after, number)
            lasts.insert(after, number)
            if len(firsts) > MAX_RANGES:
                del firsts[1], lasts[0]
        return True


class Delivery:
    """The delivery state of one agent, loaded from its locked row, changed by `admit`, and written back."""

    def __init__(
        self,
        *,
        committed_sequence: int = 0,
        received_ranges: Iterable[Iterable[int]] = (),
        farewell_sequence: int | None = None,
        received: int = 0,
        duplicated: int = 0,
    ) -> None:
        self.committed_sequence = committed_sequence
        self.ranges = Ranges(received_ranges)
        self.farewell_sequence = farewell_sequence
        self.received = received
        self.duplicated = duplicated

    def admit_ordered(self, sequence: int) -> bool:
        """Whether a stream's report is new; then it counts as applied."""
        if sequence <= self.committed_sequence:
            self.duplicated += 1
            return False
        self.committed_sequence = sequence
        self.received += 1
        return True

    def admit_unordered(self, sequence: int) -> bool:
        """Whether a datagram's report is new; then it counts as applied."""
        if not self.ranges.add(sequence):
            self.duplicated += 1
            return False
        self.received += 1
        return True

    def bid_farewell(self, last_sequence: int) -> None:
        """The agent said what its last report was; it says so three times over udp."""
        self.farewell_sequence = max(last_sequence, self.farewell_sequence or 0)

    @property
    def highest(self) -> int:
        """The highest sequence applied."""
        return max(self.committed_sequence, self.ranges.highest)

    @property
    def lost(self) -> int:
        """Reports known to have been sent that are not in the store."""
        return max(self.highest, self.farewell_sequence or 0) - self.received
