"""Spans as one packed row each, instead of a row per site.

Nothing is summed here, so that a large database starts at once: the writer does it in the background, and until then
questions read buckets. The spans of the version before stay for a collector of that version beside this one, and go
with their age. What that collector writes into a span that is already summed is missing from it, so do not let the two
run side by side for long.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "summed",
        *_keys("span_s", "bucket_s"),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("ready", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "summed_totals",
        *_keys("span_s", "bucket_s"),
        sa.Column("totals", sa.LargeBinary(), nullable=False),
        sa.Column("presence", sa.LargeBinary(), nullable=True),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("summed_totals", "summed"):
        op.drop_table(table)


def _keys(*names: str) -> "list[sa.Column[int]]":
    return [sa.Column(name, sa.BigInteger(), primary_key=True, autoincrement=False) for name in names]
