"""Jobs have a priority and can be paused; what names a blob is found by its digest."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_jobs_state_number", "jobs")
    op.create_index("ix_jobs_claim", "jobs", ["state", sa.text("priority DESC"), "number"])
    op.create_index("ix_checkpoints_sha256", "checkpoints", ["sha256"])
    op.create_index("ix_attempts_logs", "attempts", ["logs"])


def downgrade() -> None:
    op.drop_index("ix_attempts_logs", "attempts")
    op.drop_index("ix_checkpoints_sha256", "checkpoints")
    op.drop_index("ix_jobs_claim", "jobs")
    op.create_index("ix_jobs_state_number", "jobs", ["state", "number"])
    op.drop_column("jobs", "paused_at")
    op.drop_column("jobs", "priority")
