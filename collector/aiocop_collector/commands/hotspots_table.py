"""The answer of `GET /hotspots` as a table for people: in a terminal of any width, and plain in a pipe."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from aiocop_collector.answers.models import HotspotsAnswer

_UNBOUNDED: Final = 100_000
_BAR_CELLS: Final = 10
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_SEVERITY_STYLES: Final = {"high": "bold red", "medium": "yellow", "low": ""}

Row = Mapping[str, Any]


def render_hotspots(answer: "HotspotsAnswer | Mapping[str, Any]", console: Console) -> None:
    """Print the rows of an answer (the model, or its decoded JSON) and the advice for them.

    In a terminal the table fits its width. Elsewhere it is as wide as its longest row: nothing is cut off or folded.
    """
    content = answer if isinstance(answer, Mapping) else answer.model_dump()
    rows: Sequence[Row] = content["hotspots"]
    title = str(content["group_by"]).replace("_", " ").capitalize()
    table = _wide_table(rows, title)
    size = Measurement.get(console, console.options.update(width=_UNBOUNDED), table)
    if not console.is_terminal:
        table.width = size.maximum
    elif size.minimum > console.width:
        table = _narrow_table(rows, title)
    _print(console, table)
    shown, total = len(rows), content["total"]
    window = content["window"]
    more = f"{shown} of {total}" if shown < total else str(total)
    noun = "row" if total == 1 else "rows"
    _print(console, Text(f"{more} {noun}, {window['since']} to {window['until']}", style="dim"))
    advice = _advice(rows)
    if advice:
        _print(console, Text("\nWhat to use instead", style="bold"))
        for ranks, text in advice:
            _print(console, Text.assemble((f"  {ranks}  ", "cyan"), text))


def human_duration(ms: float | None) -> str:
    """`0.4 ms`, `31.2 ms`, `58.1 s`, `12.5 min`, `3.2 h`: three digits or so."""
    if ms is None:
        return "-"
    for limit_ms, unit_ms, unit in ((1_000, 1, "ms"), (120_000, 1_000, "s"), (7_200_000, 60_000, "min")):
        if ms < limit_ms:
            return f"{ms / unit_ms:.1f} {unit}"
    return f"{ms / 3_600_000:.1f} h"


def share_bar(share: float) -> str:
    """A share of 0 … 1 as ten cells of block characters."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_BAR_CELLS)


def _wide_table(rows: Sequence[Row], title: str) -> Table:
    """A column per fact."""
    table = _table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column(title, no_wrap=True)
    table.add_column("Service", no_wrap=True)
    table.add_column("Operations", overflow="fold")
    for number in ("Blocked", "Share", "Count", "Slow", "p99", "Max", "Last seen"):
        table.add_column(number, justify="left" if number in ("Share", "Last seen") else "right", no_wrap=True)
    for rank, row in enumerate(rows, start=1):
        table.add_row(
            str(rank),
            _name(row),
            _service(row),
            _operations(row),
            human_duration(row["blocked_ms"]),
            _share(row),
            f"{row['count']:,}",
            f"{row['slow_count']:,}",
            human_duration(row["p99_ms"]),
            human_duration(row["max_ms"]),
            _last_seen(row),
        )
    return table


def _narrow_table(rows: Sequence[Row], title: str) -> Table:
    """Service and operations under the call site, fewer numbers."""
    table = _table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column(title, overflow="fold", ratio=1)
    for number in ("Blocked", "Share", "Count", "Max"):
        table.add_column(number, justify="right", no_wrap=True)
    for rank, row in enumerate(rows, start=1):
        under = " · ".join(part for part in (_service(row), _operations(row)) if part)
        table.add_row(
            str(rank),
            Text.assemble(_name(row), ("\n" + under, "dim")),
            human_duration(row["blocked_ms"]),
            f"{row['share']:.0%}",
            f"{row['count']:,}",
            human_duration(row["max_ms"]),
        )
    return table


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def _print(console: Console, what: Table | Text) -> None:
    if console.is_terminal:
        console.print(what)
    else:
        # Without soft_wrap Rich folds text and crops tables at the 80 columns it assumes for a pipe.
        console.print(what, soft_wrap=True)


def _name(row: Row) -> Text:
    """What the row stands for: its call site, or the value it was grouped by."""
    name = row.get("key") or row["call_site"] or "(no name)"
    return Text(name, style=_SEVERITY_STYLES[row["severity_level"]])


def _service(row: Row) -> str:
    service, environment = row["service"], row["environment"]
    if service is None:
        return "(several)"
    return f"{service}/{environment}" if environment else str(service)


def _operations(row: Row) -> str:
    names = [operation["name"] for operation in row["operations"]]
    return ", ".join(names[:3]) + (f" +{len(names) - 3}" if len(names) > 3 else "")


def _share(row: Row) -> Text:
    return Text.assemble((share_bar(row["share"]), "red"), f" {row['share']:>4.0%}")


def _last_seen(row: Row) -> str:
    # Python 3.10 does not read a Z.
    at = datetime.fromisoformat(row["last_seen"].replace("Z", "+00:00"))
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _advice(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Each advice once, with the ranks it is for."""
    ranks: dict[str, list[str]] = {}
    for rank, row in enumerate(rows, start=1):
        if row["advice"]:
            ranks.setdefault(row["advice"], []).append(f"#{rank}")
    return [(", ".join(of), text) for text, of in ranks.items()]
