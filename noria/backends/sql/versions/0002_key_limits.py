"""Keys may be bound to models and have limits of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add both columns; keys that exist stay without."""
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("models", sa.Text))
        keys.add_column(sa.Column("limits", sa.Text))
