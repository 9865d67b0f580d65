"""What `aiocop-collector db info` shows in a terminal."""

from rich.console import Console
from rich.table import Table

from aiocop_collector.notation import to_rfc3339
from aiocop_collector.store.inventory import Inventory

_MIB = 1 << 20


def render_inventory(where: str, inventory: Inventory, max_bytes: int, console: Console) -> None:
    """Facts first, then what there is of each resolution, then the rows of each table."""
    size = inventory.size
    limit = f" of {max_bytes / _MIB:.0f} MiB" if max_bytes else ", no limit"
    upgrade = (
        "" if inventory.revision == inventory.newest_revision else f", this version makes {inventory.newest_revision}"
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row("database", where)
    facts.add_row("schema", f"{inventory.revision}{upgrade}")
    facts.add_row("migrated by", f"aiocop-collector {inventory.collector_version or 'of an earlier version'}")
    facts.add_row("stored", f"{size.used_bytes / _MIB:.1f} MiB{limit}")
    facts.add_row("files", f"{size.files_bytes / _MIB:.1f} MiB")
    console.print(facts)
    kept = Table("resolution", "oldest", "newest", "deleted before")
    for one in inventory.kept:
        kept.add_row(one.resolution, _time(one.oldest_s), _time(one.newest_s), _time(one.horizon_s))
    console.print(kept)
    rows = Table("table", "rows")
    rows.columns[1].justify = "right"
    for name, count in inventory.rows.items():
        rows.add_row(name, str(count))
    console.print(rows)


def _time(at_s: int | None) -> str:
    return to_rfc3339(at_s * 1000) if at_s is not None else "-"
