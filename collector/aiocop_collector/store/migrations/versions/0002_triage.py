"""What people decide about hotspots, and who changed what."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("hotspot_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(), nullable=False),
        *[
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in (
                "resolved_release_id",
                "resolved_at_ms",
                "ignored_at_ms",
                "ignored_until_ms",
                "ignored_below_ms_per_hour",
            )
        ],
        sqlite_with_rowid=False,
    )
    op.create_table(
        "history",
        sa.Column("hotspot_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    # What was decided before there was this table: resolved in the last release seen, ignored without an end.
    op.execute(
        "INSERT INTO decisions (hotspot_id, owner, resolved_release_id, resolved_at_ms) "
        "SELECT id, '', last_release_id, last_seen_ms FROM hotspots WHERE status = 'resolved'"
    )
    op.execute(
        "INSERT INTO decisions (hotspot_id, owner, ignored_at_ms) "
        "SELECT id, '', last_seen_ms FROM hotspots WHERE status = 'ignored'"
    )


def downgrade() -> None:
    op.drop_table("history")
    op.drop_table("decisions")
