"""A log is copied while its attempt runs, too: when it was last copied tells whether it is whole."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("logs_copied_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE attempts SET logs_copied_at = CURRENT_TIMESTAMP WHERE logs IS NOT NULL")  # all of them whole


def downgrade() -> None:
    op.drop_column("attempts", "logs_copied_at")
