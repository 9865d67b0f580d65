"""The words that answers, questions and the command line share; without pydantic, for the last one's sake."""

from typing import Final, Literal, get_args

Status = Literal["open", "regressed", "resolved", "ignored"]
Reason = Literal["io_blocking", "cpu_blocking"]
SeverityLevel = Literal["high", "medium", "low"]
GroupBy = Literal["call_site", "entry_point", "operation", "fingerprint", "line", "service", "release"]

STATUSES: Final[tuple[str, ...]] = get_args(Status)
