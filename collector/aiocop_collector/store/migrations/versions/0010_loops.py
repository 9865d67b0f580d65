"""How loops fare: lag, blocked time, what waited. A collector of the version before writes none of it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BINS = 86
_COUNTERS = (
    "observed_us",
    "blocked_us",
    "starved_us",
    "slow_slices",
    "waiting",
    "waiting_max",
    "lag_us",
    "lag_max_us",
)
_RESOLUTIONS = ("minute", "hour", "day")


def upgrade() -> None:
    for resolution in _RESOLUTIONS:
        op.create_table(
            f"loops_{resolution}",
            sa.Column("bucket_s", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("service_id", sa.BigInteger(), primary_key=True, autoincrement=False),
            *[sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTERS],
            *[sa.Column(f"b{index:02}", sa.BigInteger(), nullable=True) for index in range(_BINS)],
            sqlite_with_rowid=False,
        )
    op.add_column("agents", sa.Column("loops", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("agents", "loops")
    for resolution in _RESOLUTIONS:
        op.drop_table(f"loops_{resolution}")
