"""SQL text for the writer, the same for SQLite and PostgreSQL but for the placeholders.

Written out and run through `exec_driver_sql`, because that measured 1.4 times the rows per second of SQLAlchemy Core's
own inserts (see docs/architecture.md). Values are always parameters.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from sqlalchemy import Table
from sqlalchemy.engine import Dialect

ADD = "{old} + {new}"
ADD_BIN = "coalesce({old} + {new}, {old}, {new})"
LARGEST = "CASE WHEN {new} > {old} THEN {new} ELSE {old} END"
SMALLEST = "CASE WHEN {new} < {old} THEN {new} ELSE {old} END"
REPLACE = "{new}"
FIRST_RELEASE = "CASE WHEN excluded.first_seen_ms < {table}.first_seen_ms THEN {new} ELSE {old} END"
LAST_RELEASE = "CASE WHEN excluded.last_seen_ms >= {table}.last_seen_ms THEN {new} ELSE {old} END"

SIGHTINGS: Mapping[str, str] = {
    "first_seen_ms": SMALLEST,
    "last_seen_ms": LARGEST,
    "first_release_id": FIRST_RELEASE,
    "last_release_id": LAST_RELEASE,
}
"""How the four columns of a sighting merge."""


_MAX_REMEMBERED: Final = 512
"""Upserts of which the text is kept: three histograms with 66 spans of bins each, and some others."""


class Statements:
    """Builds the text for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._quote = dialect.identifier_preparer.quote
        self._numbered = dialect.name == "postgresql"
        self._upsert = lru_cache(maxsize=_MAX_REMEMBERED)(self._build_upsert)

    def placeholders(self, count: int, *, start: int = 1) -> str:
        """`?, ?` or `$1, $2`."""
        if self._numbered:
            return ", ".join(f"${index}" for index in range(start, start + count))
        return ", ".join("?" * count)

    def upsert(
        self,
        table: Table,
        merge: Mapping[str, str],
        *,
        columns: Sequence[str] | None = None,
        bins: Sequence[str] = (),
    ) -> str:
        """Insert a row; on a conflict of keys change what `merge` names. An empty `merge` leaves the row there alone.

        Parameters are in the order of `columns`; without them, of all the table's columns. After them come those of
        `bins`, which are added up; an empty bin is given as 0 and stored as NULL. (Python's sqlite3 takes ten times as
        long to bind None as to bind 0: 4 µs more for a row of 16 bins, measured on CPython 3.11.)
        """
        return self._upsert(table, tuple(merge.items()), None if columns is None else tuple(columns), tuple(bins))

    def _build_upsert(
        self, table: Table, merge: tuple[tuple[str, str], ...], columns: tuple[str, ...] | None, bins: tuple[str, ...]
    ) -> str:
        name = self._quote(table.name)
        inserted = tuple([column.name for column in table.columns]) if columns is None else columns
        names = ", ".join(self._quote(column) for column in (*inserted, *bins))
        key = ", ".join(self._quote(column.name) for column in table.primary_key.columns)
        changes = ", ".join(
            f"{self._quote(column)} = "
            + rule.format(
                old=f"{name}.{self._quote(column)}", new=f"excluded.{self._quote(column)}", table=name, column=column
            )
            for column, rule in (*merge, *[(column, ADD_BIN) for column in bins])
        )
        action = f"UPDATE SET {changes}" if changes else "NOTHING"
        values = ", ".join([self.placeholders(len(inserted)), *self._bin_values(len(bins), start=len(inserted) + 1)])
        return f"INSERT INTO {name} ({names}) VALUES ({values}) ON CONFLICT ({key}) DO {action}"  # noqa: S608 names of our own tables

    def _bin_values(self, count: int, *, start: int) -> list[str]:
        if self._numbered:
            return [f"nullif(${index}::bigint, 0)" for index in range(start, start + count)]
        return ["nullif(?, 0)"] * count

    def update(self, table: Table, columns: Sequence[str]) -> str:
        """Set `columns` of the row whose key is the last parameter."""
        (key,) = table.primary_key.columns
        changes = ", ".join(
            f"{self._quote(column)} = {self.placeholders(1, start=index)}"
            for index, column in enumerate(columns, start=1)
        )
        where = f"{self._quote(key.name)} = {self.placeholders(1, start=len(columns) + 1)}"
        return f"UPDATE {self._quote(table.name)} SET {changes} WHERE {where}"  # noqa: S608 names of our own tables

    def touch(self, table: Table) -> str:
        """Merge a sighting into a row that exists. Parameters: see `touch_values`."""
        parts = iter(range(1, 10))

        def put() -> str:
            return self.placeholders(1, start=next(parts))

        return (
            f"UPDATE {self._quote(table.name)} SET "  # noqa: S608 names of our own tables
            f"first_release_id = CASE WHEN {put()} < first_seen_ms THEN {put()} ELSE first_release_id END, "
            f"last_release_id = CASE WHEN {put()} >= last_seen_ms THEN {put()} ELSE last_release_id END, "
            f"first_seen_ms = CASE WHEN {put()} < first_seen_ms THEN {put()} ELSE first_seen_ms END, "
            f"last_seen_ms = CASE WHEN {put()} > last_seen_ms THEN {put()} ELSE last_seen_ms END "
            f"WHERE id = {put()}"
        )

    def keep_newest(self, table: Table, group: str, time: str, most: int) -> str:
        """Delete all rows of one group but the newest. Parameters: the group, twice."""
        name = self._quote(table.name)
        return (
            f"DELETE FROM {name} WHERE {group} = {self.placeholders(1)} AND id NOT IN "  # noqa: S608 names of our own tables
            f"(SELECT id FROM {name} WHERE {group} = {self.placeholders(1, start=2)} ORDER BY {time} DESC, id "
            f"LIMIT {most})"
        )


def touch_values(row_id: int, first_ms: int, last_ms: int, first_release: int, last_release: int) -> tuple[int, ...]:
    """Parameters of `touch`."""
    return (first_ms, first_release, last_ms, last_release, first_ms, first_ms, last_ms, last_ms, row_id)
