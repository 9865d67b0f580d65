"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BINS = 86  # the protocol's first histogram; a later one comes with a migration of its own


def upgrade() -> None:
    op.create_table(
        "services",
        _integer("id", primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        _integer("first_seen_ms"),
        _integer("last_seen_ms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "releases",
        _integer("id", primary_key=True),
        _integer("service_id", index=True),
        sa.Column("name", sa.String(), nullable=False),
        _integer("first_seen_ms"),
        _integer("last_seen_ms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.String(32), primary_key=True),
        _integer("service_id", index=True),
        _integer("release_id"),
        _integer("pid"),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("python", sa.String(), nullable=False),
        sa.Column("loop", sa.String(), nullable=False),
        sa.Column("agent_version", sa.String(), nullable=False),
        sa.Column("transport", sa.String(), nullable=False),
        _integer("started_at_ms"),
        _integer("first_seen_ms"),
        _integer("last_seen_ms", index=True),
        _integer("committed_sequence"),
        sa.Column("received_ranges", sa.Text(), nullable=False),
        sa.Column("farewell_sequence", sa.BigInteger(), nullable=True),
        _integer("reports_received"),
        _integer("reports_lost"),
        _integer("reports_duplicated"),
        sa.Column("dropped", sa.Text(), nullable=False),
        _integer("recorded"),
        _integer("slices"),
        _integer("agent_cpu_us"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hotspots",
        _integer("id", primary_key=True),
        _integer("service_id", index=True),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("function", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        *_sightings(),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sites",
        _integer("id", primary_key=True),
        _integer("hotspot_id", index=True),
        _integer("service_id", index=True),
        sa.Column("operation", sa.String(), nullable=False),
        _integer("fingerprint"),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("entry_path", sa.String(), nullable=False),
        sa.Column("entry_line", sa.Integer(), nullable=False),
        sa.Column("entry_function", sa.String(), nullable=False),
        sa.Column("frames", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        *_sightings(),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "traces",
        _integer("id", primary_key=True),
        _integer("site_id", index=True),
        sa.Column("frames", sa.Text(), nullable=False),
        _integer("last_seen_ms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "slow_events",
        _integer("id", primary_key=True),
        _integer("hotspot_id", primary_key=True),
        sa.Column("agent_id", sa.String(32), nullable=False),
        _integer("started_at_ms"),
        _integer("elapsed_us"),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Index("ix_slow_events_hotspot_id_started_at_ms", "hotspot_id", "started_at_ms"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "presence",
        _integer("day_s", primary_key=True),
        _integer("site_id", primary_key=True),
        sa.Column("agent_id", sa.String(32), primary_key=True),
        sqlite_with_rowid=False,
    )
    for resolution in ("minute", "hour", "day"):
        op.create_table(
            f"rollups_{resolution}",
            *_key(),
            _integer("count"),
            _integer("slow_count"),
            _integer("blocked_us"),
            _integer("max_us"),
            sqlite_with_rowid=False,
        )
        op.create_table(
            f"histograms_{resolution}",
            *_key(),
            *[sa.Column(f"b{index:02}", sa.BigInteger(), nullable=True) for index in range(_BINS)],
            sqlite_with_rowid=False,
        )


def downgrade() -> None:
    for table in ("minute", "hour", "day"):
        op.drop_table(f"histograms_{table}")
        op.drop_table(f"rollups_{table}")
    for table in ("presence", "slow_events", "traces", "sites", "hotspots", "agents", "releases", "services"):
        op.drop_table(table)


def _integer(name: str, *, primary_key: bool = False, index: bool = False) -> "sa.Column[int]":
    """An integer of 64 bits that must be there: ids, times and totals all are."""
    if primary_key:
        return sa.Column(name, sa.BigInteger(), primary_key=True, autoincrement=False)
    return sa.Column(name, sa.BigInteger(), nullable=False, index=index)


def _key() -> "list[sa.Column[int]]":
    return [_integer(name, primary_key=True) for name in ("bucket_s", "site_id", "release_id")]


def _sightings() -> "list[sa.Column[int]]":
    return [_integer(name) for name in ("first_seen_ms", "last_seen_ms", "first_release_id", "last_release_id")]
