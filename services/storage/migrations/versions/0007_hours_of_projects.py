"""Projects have hours that their jobs may use; workers are asked to stop once these are used."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("max_hours", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_projects"),
        sa.CheckConstraint("max_hours >= 0", name="max_hours_is_not_negative"),
    )
    op.add_column("attempts", sa.Column("stop_requested_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "stop_requested_at")
    op.drop_table("projects")
