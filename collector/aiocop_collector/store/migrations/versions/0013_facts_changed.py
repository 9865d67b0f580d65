"""A number that changes with the facts of sites and hotspots, so that collectors may remember those between questions.

By triggers, so that a collector of the version before, which knows nothing of it, changes it too. They compare: an
agent that defines again what is known changes nothing. Not when something was seen, which every commit changes.

On PostgreSQL a number per transaction, as one number would make transactions wait for each other; whoever adds one
takes away those that nobody else is just taking away. Whatever is deleted, a state of the table never comes back: the
number of the transaction that was committed last is always in it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_SITE_FACTS = (
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


def upgrade() -> None:
    op.create_table(
        "facts_changed",
        sa.Column("change", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    if not sqlite:
        op.execute(
            "CREATE FUNCTION note_changed_facts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO facts_changed VALUES (txid_current()) ON CONFLICT DO NOTHING; "
            "IF FOUND THEN DELETE FROM facts_changed WHERE change IN "
            "(SELECT change FROM facts_changed WHERE change <> txid_current() FOR UPDATE SKIP LOCKED); END IF; "
            "RETURN NULL; END $$"
        )
    old, new = (", ".join(f"{row}.{column}" for column in _SITE_FACTS) for row in ("OLD", "NEW"))
    differs = "IS NOT" if sqlite else "IS DISTINCT FROM"
    note = "EXECUTE FUNCTION note_changed_facts()"
    if sqlite:
        note = "BEGIN DELETE FROM facts_changed; INSERT INTO facts_changed VALUES (random()); END"
    for name, when, condition in (
        ("site_added", "INSERT ON sites", ""),
        ("site_changed", f"UPDATE OF {', '.join(_SITE_FACTS)} ON sites", f" WHEN (({old}) {differs} ({new}))"),
        ("hotspot_changed", "UPDATE OF status ON hotspots", f" WHEN (OLD.status {differs} NEW.status)"),
    ):
        op.execute(f"CREATE TRIGGER {name} AFTER {when} FOR EACH ROW{condition} {note}")


def downgrade() -> None:
    postgresql = op.get_bind().dialect.name != "sqlite"
    for name, table in (("site_added", "sites"), ("site_changed", "sites"), ("hotspot_changed", "hotspots")):
        op.execute(f"DROP TRIGGER {name}{f' ON {table}' if postgresql else ''}")
    if postgresql:
        op.execute("DROP FUNCTION note_changed_facts()")
    op.drop_table("facts_changed")
