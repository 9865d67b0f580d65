"""Triggers that put another number into `facts_changed` when what is said of a site or a hotspot changes.

What migration 0013 makes, and why as it does, is said there; this is the same for tables that are made without it.
"""

from typing import Final

FACTS_OF_SITES: Final = (
    "hotspot_id",
    "service_id",
    "operation",
    "fingerprint",
    "reason",
    "weight",
    "line",
    "entry_path",
    "entry_line",
    "entry_function",
    "advice",
)
"""Columns of `sites` that may be remembered. Of `hotspots` it is the status; the others never change."""

_ON_POSTGRESQL: Final = (
    "CREATE FUNCTION note_changed_facts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO facts_changed VALUES (txid_current()) ON CONFLICT DO NOTHING; "
    "IF FOUND THEN DELETE FROM facts_changed WHERE change IN "
    "(SELECT change FROM facts_changed WHERE change <> txid_current() FOR UPDATE SKIP LOCKED); END IF; "
    "RETURN NULL; END $$"
)


def fact_triggers(dialect: str) -> list[str]:
    """Statements that make them, in order."""
    sqlite = dialect == "sqlite"
    differs = "IS NOT" if sqlite else "IS DISTINCT FROM"
    old, new = (", ".join(f"{row}.{column}" for column in FACTS_OF_SITES) for row in ("OLD", "NEW"))
    note = "EXECUTE FUNCTION note_changed_facts()"
    if sqlite:
        note = "BEGIN DELETE FROM facts_changed; INSERT INTO facts_changed VALUES (random()); END"
    triggers = [
        f"CREATE TRIGGER {name} AFTER {when} FOR EACH ROW{condition} {note}"
        for name, when, condition in (
            ("site_added", "INSERT ON sites", ""),
            (
                "site_changed",
                f"UPDATE OF {', '.join(FACTS_OF_SITES)} ON sites",
                f" WHEN (({old}) {differs} ({new}))",
            ),
            ("hotspot_changed", "UPDATE OF status ON hotspots", f" WHEN (OLD.status {differs} NEW.status)"),
        )
    ]
    return triggers if sqlite else [_ON_POSTGRESQL, *triggers]
