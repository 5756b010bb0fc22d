"""What a person should look at."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table of alerts."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("subject", sa.String(160), nullable=False, index=True),
        sa.Column("fact", sa.Text, nullable=False),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("resolved", sa.String(32)),
    )
