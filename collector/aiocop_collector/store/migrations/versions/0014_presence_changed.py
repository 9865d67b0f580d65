"""A number per service that changes when an agent is seen at a site of it for the first time that day, so that
collectors may remember between questions who was seen today: to count a day's rows takes longer than most of what a
question reads.

By a trigger, so that a collector of the version before, which knows nothing of it, changes it too. Per service, as
commits of the same service wait for each other anyway, and no others have to. Nothing tells of deletions: those are of
days that are past retention.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "presence_changed",
        sa.Column("service_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER presence_added AFTER INSERT ON presence FOR EACH ROW BEGIN "
            "DELETE FROM presence_changed WHERE service_id = (SELECT service_id FROM sites WHERE id = NEW.site_id); "
            "INSERT INTO presence_changed SELECT service_id, random() FROM sites WHERE id = NEW.site_id; END"
        )
        return
    op.execute(
        "CREATE FUNCTION note_changed_presence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO presence_changed SELECT DISTINCT sites.service_id, txid_current() "
        "FROM added JOIN sites ON sites.id = added.site_id "
        "ON CONFLICT (service_id) DO UPDATE SET change = excluded.change; "
        "RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER presence_added AFTER INSERT ON presence REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION note_changed_presence()"
    )
