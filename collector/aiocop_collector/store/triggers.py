"""Triggers that put other numbers into `facts_changed` when what is said of a site or a hotspot changes, and into
`presence_changed` when somebody is seen at a site for the first time that day.

What migrations 0013 and 0014 make, and why as they do, is said there; this is the same for tables that are made without
them.
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

_NOTE_FACTS: Final = (
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
    return triggers if sqlite else [_NOTE_FACTS, *triggers]


_NOTE_PRESENCE: Final = (
    "CREATE FUNCTION note_changed_presence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "INSERT INTO presence_changed SELECT DISTINCT sites.service_id, txid_current() "
    "FROM added JOIN sites ON sites.id = added.site_id "
    "ON CONFLICT (service_id) DO UPDATE SET change = excluded.change; "
    "RETURN NULL; END $$"
)


def presence_triggers(dialect: str) -> list[str]:
    """Statements that make them, in order."""
    if dialect == "sqlite":
        return [
            "CREATE TRIGGER presence_added AFTER INSERT ON presence FOR EACH ROW BEGIN "
            "DELETE FROM presence_changed WHERE service_id = (SELECT service_id FROM sites WHERE id = NEW.site_id); "
            "INSERT INTO presence_changed SELECT service_id, random() FROM sites WHERE id = NEW.site_id; END"
        ]
    return [
        _NOTE_PRESENCE,
        "CREATE TRIGGER presence_added AFTER INSERT ON presence REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_changed_presence()",
    ]
