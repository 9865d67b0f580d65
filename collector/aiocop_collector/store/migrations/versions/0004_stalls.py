"""Freezes in progress, and how they went out."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stalls",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("agent_id", sa.String(32), nullable=False, index=True),
        sa.Column("service_id", sa.BigInteger(), nullable=False, index=True),
        sa.Column("release_id", sa.BigInteger(), nullable=False),
        sa.Column("slice_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=False, index=True),
        sa.Column("blocked_us", sa.BigInteger(), nullable=False),
        sa.Column("site_id", sa.BigInteger(), nullable=True),
        sa.Column("wire_site_id", sa.BigInteger(), nullable=True),
        sa.Column("reported", sa.Integer(), nullable=False),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("gil_held", sa.Integer(), nullable=True),
        sa.Column("died_count", sa.Integer(), nullable=False),
        sa.Column("thread_name", sa.String(), nullable=False),
        sa.Column("frames", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("stalls")
