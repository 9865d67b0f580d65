"""When the governor gives up detail and when it takes it back: arithmetic over shares of time, without a clock."""

from __future__ import annotations

from typing import Final

HIGHEST_LEVEL: Final = 3
_BURST_TICKS: Final = 5
"""What may be spent at once, in ticks' worth of the budget: a program that starts does everything for the first time.
"""
_CALM_TICKS: Final = 5
"""Ticks below half the budget after which a level is taken back."""
_RELAPSE_TICKS: Final = 60
"""Giving up detail this soon after taking it back was a relapse: the next attempt waits twice as long."""
_LONGEST_CALM_TICKS: Final = 320
_WORTH_IT: Final = 0.25
"""Part of the budget that less detail must be able to save, or it is not given up."""


class Pacing:
    """The level that a sequence of shares leads to.

    Bursts are forgiven (a bucket holds what the budget allows in _BURST_TICKS), so one busy moment changes nothing.
    Levels are taken back one at a time, only where the level before would have kept to half the budget, and ever more
    reluctantly while that turns out to be wrong: a lasting storm makes no level flap.
    """

    def __init__(self, budget: float) -> None:
        """`budget` is the share that may be taken; 0 lets the level stay at 0."""
        self.level = 0
        self._budget = budget
        self._credit = _BURST_TICKS * budget
        self._calm_ticks = 0.0
        self._needed_ticks = float(_CALM_TICKS)
        self._since_recovery = float("inf")

    def tick(self, share: float, finer: float, reducible: float, ticks: float) -> bool:
        """Take in what was taken in the last `ticks` ticks. Whether the level changes.

        `finer` is the share it would have been one level below, `reducible` the part that less detail might save.
        """
        budget = self._budget
        if not budget:
            return False
        self._since_recovery += ticks
        self._credit = min(self._credit + (budget - share) * ticks, _BURST_TICKS * budget)
        if self._credit < 0 and self.level < HIGHEST_LEVEL and reducible >= _WORTH_IT * budget:
            self._give_up()
            return True
        self._credit = max(self._credit, 0.0)
        self._calm_ticks = self._calm_ticks + ticks if finer <= budget / 2 else 0.0
        if self.level and self._calm_ticks >= self._needed_ticks:
            self._take_back()
            return True
        return False

    def _give_up(self) -> None:
        if self._since_recovery < _RELAPSE_TICKS:
            self._needed_ticks = min(2 * self._needed_ticks, _LONGEST_CALM_TICKS)
        elif not self.level:
            self._needed_ticks = _CALM_TICKS
        self._since_recovery = float("inf")
        self.level += 1
        self._calm_ticks = 0.0
        self._credit = self._budget

    def _take_back(self) -> None:
        self._since_recovery = 0.0
        self.level -= 1
        self._calm_ticks = 0.0
        self._credit = _BURST_TICKS * self._budget
