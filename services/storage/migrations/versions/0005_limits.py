"""Jobs have deadlines and hours that they may work; attempts have what they worked."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHECKS = {
    "placed_has_devices": "(devices IS NULL) = (placed_at IS NULL)",
    "devices_is_positive": "devices > 0",
    "placed_has_device_seconds": "device_seconds = 0 OR (device_seconds > 0 AND placed_at IS NOT NULL)",
}


def upgrade() -> None:
    _drop_indexes()
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("max_hours", sa.Double(), nullable=True))
        jobs.add_column(sa.Column("deadline", sa.DateTime(timezone=True), nullable=True))
        jobs.create_check_constraint("max_hours_is_positive", "max_hours > 0")
    with op.batch_alter_table("attempts") as attempts:
        attempts.add_column(sa.Column("placed_at", sa.DateTime(timezone=True), nullable=True))
        attempts.add_column(sa.Column("devices", sa.Integer(), nullable=True))
        attempts.add_column(sa.Column("device_seconds", sa.Double(), server_default="0", nullable=False))
        for name, condition in CHECKS.items():
            attempts.create_check_constraint(name, condition)
    _create_indexes()


def downgrade() -> None:
    _drop_indexes()
    with op.batch_alter_table("attempts") as attempts:
        for name in CHECKS:
            attempts.drop_constraint(name, type_="check")
        for column in ("device_seconds", "devices", "placed_at"):
            attempts.drop_column(column)
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("max_hours_is_positive", type_="check")
        jobs.drop_column("deadline")
        jobs.drop_column("max_hours")
    _create_indexes()


def _drop_indexes() -> None:
    """SQLite makes tables anew, and would make these without their order and condition."""
    op.drop_index("ix_jobs_claim", "jobs")
    op.drop_index("one_live_attempt_per_job", "attempts")


def _create_indexes() -> None:
    op.create_index("ix_jobs_claim", "jobs", ["state", sa.text("priority DESC"), "number"])
    live = sa.text("finished_at IS NULL")
    op.create_index(
        "one_live_attempt_per_job", "attempts", ["job"], unique=True, sqlite_where=live, postgresql_where=live
    )
