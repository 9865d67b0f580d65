"""What people want of agents: settings, captures, and who changed what; and what agents say is in force."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("control", sa.Text(), nullable=True))
    op.create_table(
        "control_revision",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "control_settings",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "control_history",
        sa.Column("settings_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("changes", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "captures",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("settings_id", sa.BigInteger(), nullable=False, index=True),
        sa.Column("hotspot_id", sa.BigInteger(), nullable=False, index=True),
        sa.Column("service_id", sa.BigInteger(), nullable=False),
        sa.Column("place_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_at_ms", sa.BigInteger(), nullable=False, index=True),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("captured_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("agent_id", sa.String(32), nullable=True),
        sa.Column("event", sa.Text(), nullable=True),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("captures", "control_history", "control_settings", "control_revision"):
        op.drop_table(table)
    op.drop_column("agents", "control")
