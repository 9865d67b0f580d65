"""What all sites of a group have in common: a row of many sites says that, and null for what varies."""

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from aiocop_collector.notation import place
from aiocop_collector.queries.fact_memory import SiteFacts


class Shared(NamedTuple):
    """Of at least one site. What varies is None."""

    weight: int
    """The highest."""
    service: str | None
    environment: str | None
    path: str | None
    function: str | None
    reason: str | None
    status: str | None
    advice: str | None
    entry_path: str | None
    entry_line: int | None
    entry_function: str | None

    @classmethod
    def of(cls, facts: Collection[SiteFacts]) -> "Shared":
        columns = list(zip(*facts, strict=True))
        values = [set(columns[index]) for index in _COMPARED]
        return cls(max(columns[_WEIGHT]), *[found.pop() if len(found) == 1 else None for found in values])

    def plus(self, other: "Shared") -> "Shared":
        """Of the sites of both together."""
        if self == other:
            return self
        both: Iterator[tuple[Any, Any]] = zip(self[1:], other[1:], strict=True)
        return Shared(max(self.weight, other.weight), *[mine if mine == its else None for mine, its in both])

    @property
    def varies(self) -> bool:
        """Whether nothing but the weight could be other with more sites."""
        return self[1:] == _NOTHING_SHARED

    @property
    def entry_point(self) -> str | None:
        """As the API shows it."""
        if self.entry_path is None or self.entry_function is None:
            return None
        if self.entry_line is None:
            # Of a pseudo call site no line is shown, so it may vary.
            shown = {place(self.entry_path, line, self.entry_function) for line in (0, 1)}
            return shown.pop() if len(shown) == 1 else None
        return place(self.entry_path, self.entry_line, self.entry_function)


_COMPARED: Final = [SiteFacts._fields.index(name) for name in Shared._fields[1:]]
_NOTHING_SHARED: Final = (None,) * len(_COMPARED)
_WEIGHT: Final = SiteFacts._fields.index("weight")
