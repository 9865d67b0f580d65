"""Tables of minutes and hours divided by day, on PostgreSQL; SQLite has nothing to do.

In place: the table that is there becomes the first partition, up to an edge in the future, and is read once to check
that. A collector of the version before goes on reading and writing by the same names and keys; its rows end up in the
right partition, or in the one for all others.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_DAY_S = 86_400


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in ("rollups_minute", "histograms_minute", "rollups_hour", "histograms_hour"):
        _divide(table)


def downgrade() -> None:
    raise NotImplementedError("tables stay divided: earlier versions work on them")


def _divide(table: str) -> None:
    latest_s = op.get_bind().execute(sa.text(f"SELECT max(bucket_s) FROM {table}")).scalar() or 0  # noqa: S608 our own names
    latest_s = max(latest_s, int(time.time()))
    edge_s = latest_s - latest_s % _DAY_S + _DAY_S
    for statement in (
        f"ALTER TABLE {table} RENAME CONSTRAINT {table}_pkey TO {table}_before_pkey",
        f"ALTER TABLE {table} RENAME TO {table}_before",
        f"CREATE TABLE {table} (LIKE {table}_before INCLUDING DEFAULTS, "
        f"CONSTRAINT {table}_pkey PRIMARY KEY (bucket_s, site_id, release_id)) PARTITION BY RANGE (bucket_s)",
        f"ALTER TABLE {table} ATTACH PARTITION {table}_before FOR VALUES FROM (MINVALUE) TO ({edge_s})",
        f"CREATE TABLE {table}_other PARTITION OF {table} DEFAULT",
    ):
        op.execute(statement)
