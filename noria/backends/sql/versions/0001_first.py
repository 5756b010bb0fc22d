"""First tables: cycles, runs, artifacts, deployments, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "cycles",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("task", sa.String(63), nullable=False, index=True),
        sa.Column("began", sa.String(32), nullable=False),
        sa.Column("ended", sa.String(32)),
        sa.Column("verdict", sa.String(16)),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(64), nullable=False, index=True),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("cycle", sa.String(36), nullable=False, index=True),
        sa.Column("output", sa.String(160), nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("peak_mb", sa.Float, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("ref", sa.String(160), primary_key=True),
        sa.Column("run_key", sa.String(64), nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
    )
    op.create_table(
        "deployments",
        sa.Column("task", sa.String(63), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("made", sa.String(32), nullable=False),
        sa.Column("revoked", sa.String(32)),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("keys", "deployments", "artifacts", "runs", "cycles"):
        op.drop_table(table)
