"""Horizons of deleted buckets, and which collector migrated the store.

A collector of the version before goes on working: what it deletes for its age it need not write down.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "horizons",
        sa.Column("resolution_s", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("from_s", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "about",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("about")
    op.drop_table("horizons")
