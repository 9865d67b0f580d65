"""SQL text for the writer, the same for SQLite and PostgreSQL but for how rows are given: one by one, or as an array
for each column (driver.py).

Written out, because that measured 1.4 times the rows per second of SQLAlchemy Core's own inserts (see
docs/architecture.md). Values are always parameters.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from sqlalchemy import Table
from sqlalchemy.engine import Dialect

from aiocop_collector.store.driver import Statement

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


_ARRAYS: Final = {int: "text::bigint[]", str: "text[]", bytes: "bytea[]"}
"""How PostgreSQL takes a column of many rows, by its Python type (driver.py says why integers as text)."""

_GIVEN: Final = "given"
"""What the rows that are given are called in the text."""

_MAX_REMEMBERED: Final = 512
"""Upserts of which the text is kept: three histograms with 66 spans of bins each, and some others."""


_TOUCHED: Final = (
    "first_seen_ms",
    "first_release_id",
    "last_seen_ms",
    "last_release_id",
    "first_seen_ms",
    "first_seen_ms",
    "last_seen_ms",
    "last_seen_ms",
    "id",
)
"""The columns that `touch_values` are of."""


class Statements:
    """Builds what is executed for rows, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._quote = dialect.identifier_preparer.quote
        self._by_column = dialect.name == "postgresql"
        self._upsert = lru_cache(maxsize=_MAX_REMEMBERED)(self._build_upsert)

    def upsert(
        self,
        table: Table,
        merge: Mapping[str, str],
        *,
        columns: Sequence[str] | None = None,
        bins: Sequence[str] = (),
    ) -> Statement:
        """Insert a row; on a conflict of keys change what `merge` names. An empty `merge` leaves the row there alone.
        No two rows of one execution have the same key, but with an empty `merge`.

        Rows are in the order of `columns`; without them, of all the table's columns. After them come those of `bins`,
        which are added up; an empty bin is given as 0 and stored as NULL. (Python's sqlite3 takes ten times as long to
        bind None as to bind 0: 4 µs more for a row of 16 bins, measured on CPython 3.11.)
        """
        return self._upsert(table, tuple(merge.items()), None if columns is None else tuple(columns), tuple(bins))

    def _build_upsert(
        self, table: Table, merge: tuple[tuple[str, str], ...], columns: tuple[str, ...] | None, bins: tuple[str, ...]
    ) -> Statement:
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
        given = [self._given(number) for number in range(1, len(inserted) + len(bins) + 1)]
        values = ", ".join([*given[: len(inserted)], *[f"nullif({value}, 0)" for value in given[len(inserted) :]]])
        source = f"VALUES ({values})"
        if self._by_column:
            source = f"SELECT {values} FROM {self._rows(table, [*inserted, *bins])}"  # noqa: S608 as below
        text = f"INSERT INTO {name} ({names}) {source} ON CONFLICT ({key}) DO {action}"
        return self._statement(text, table, [*inserted, *bins])

    def update(self, table: Table, columns: Sequence[str]) -> Statement:
        """Set `columns` of the row whose key is the last in a row."""
        (key,) = table.primary_key.columns
        changes = ", ".join(
            f"{self._quote(column)} = {self._given(number)}" for number, column in enumerate(columns, start=1)
        )
        return self._change(table, changes, [*columns, key.name])

    def touch(self, table: Table) -> Statement:
        """Merge a sighting into a row that exists. Rows are `touch_values`."""
        new = iter([self._given(number) for number in range(1, 9)])
        changes = (
            f"first_release_id = CASE WHEN {next(new)} < first_seen_ms THEN {next(new)} ELSE first_release_id END, "
            f"last_release_id = CASE WHEN {next(new)} >= last_seen_ms THEN {next(new)} ELSE last_release_id END, "
            f"first_seen_ms = CASE WHEN {next(new)} < first_seen_ms THEN {next(new)} ELSE first_seen_ms END, "
            f"last_seen_ms = CASE WHEN {next(new)} > last_seen_ms THEN {next(new)} ELSE last_seen_ms END"
        )
        return self._change(table, changes, _TOUCHED)

    def keep_newest(self, table: Table, group: str, time: str, most: int) -> Statement:
        """Delete all rows of one group but the newest. Rows are the group, twice."""
        name, marks = self._quote(table.name), ("$1", "$2") if self._by_column else ("?", "?")
        return Statement(
            f"DELETE FROM {name} WHERE {group} = {marks[0]} AND id NOT IN "  # noqa: S608 names of our own tables
            f"(SELECT id FROM {name} WHERE {group} = {marks[1]} ORDER BY {time} DESC, id LIMIT {most})"
        )

    def _change(self, table: Table, changes: str, given: Sequence[str]) -> Statement:
        """Rows are values for the columns `given`, the last of which is the key."""
        name, number = self._quote(table.name), len(given)
        source = f" FROM {self._rows(table, given)}" if self._by_column else ""
        where = f"{name}.{self._quote(given[-1])} = {self._given(number)}"
        return self._statement(f"UPDATE {name} SET {changes}{source} WHERE {where}", table, given)  # noqa: S608 names of our own tables

    def _statement(self, text: str, table: Table, given: Sequence[str]) -> Statement:
        return Statement(text, tuple(_types(table, given)) if self._by_column else ())

    def _given(self, number: int) -> str:
        """The value with this number, counted from 1, of the row that is given."""
        return f"{_GIVEN}.v{number}" if self._by_column else "?"

    def _rows(self, table: Table, columns: Sequence[str]) -> str:
        """The rows that are given, made of arrays."""
        types = [_ARRAYS[one] for one in _types(table, columns)]
        arrays = ", ".join(f"${number}::{array}" for number, array in enumerate(types, start=1))
        names = ", ".join(f"v{number}" for number in range(1, len(types) + 1))
        return f"unnest({arrays}) AS {_GIVEN} ({names})"


def _types(table: Table, columns: Sequence[str]) -> list[type]:
    return [table.columns[column].type.python_type for column in columns]


def touch_values(row_id: int, first_ms: int, last_ms: int, first_release: int, last_release: int) -> tuple[int, ...]:
    """A row for `touch`."""
    return (first_ms, first_release, last_ms, last_release, first_ms, first_ms, last_ms, last_ms, row_id)
