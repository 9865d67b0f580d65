"""Spans: neighbouring buckets summed, for windows of hours to months.

Nothing is summed here, so that a large database starts at once: the writer does it in the background, and until then
questions read what they read before. A collector of the version before goes on working beside this one; what it writes
into a span that is already summed is missing from that span, so do not let the two run side by side for long.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BINS = 86
_COUNTERS = ("count", "slow_count", "blocked_us", "max_us")


def upgrade() -> None:
    op.create_table(
        "spans",
        *_keys("span_s", "bucket_s"),
        sa.Column("summed_at_ms", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollups_span",
        *_keys("span_s", "bucket_s", "site_id", "release_id"),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTERS],
        sqlite_with_rowid=False,
    )
    op.create_table(
        "histograms_span",
        *_keys("span_s", "bucket_s", "site_id", "release_id"),
        *[sa.Column(f"b{index:02}", sa.BigInteger(), nullable=True) for index in range(_BINS)],
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("histograms_span", "rollups_span", "spans"):
        op.drop_table(table)


def _keys(*names: str) -> "list[sa.Column[int]]":
    return [sa.Column(name, sa.BigInteger(), primary_key=True, autoincrement=False) for name in names]
