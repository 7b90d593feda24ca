"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "architectures",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_architectures")),
    )
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blobs")),
    )
    op.create_table(
        "latency_tables",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_latency_tables")),
    )
    op.create_table(
        "jobs",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "profile",
                "search",
                "retrain",
                "evaluate",
                "export",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=False,
        ),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("inputs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("sources", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reason", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("latency_table", sa.String(length=64), nullable=True),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("request_digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("runnable_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name=op.f("ck_jobs_failed_has_reason")),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_final_is_finished"),
        ),
        sa.CheckConstraint(
            "epoch > 0 OR state NOT IN ('running', 'succeeded')", name=op.f("ck_jobs_running_has_epoch")
        ),
        sa.ForeignKeyConstraint(["latency_table"], ["latency_tables.id"], name=op.f("fk_jobs_latency_table")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_jobs_idempotency_key")),
    )
    op.create_index("ix_jobs_state_number", "jobs", ["state", "number"], unique=False)

    op.create_table(
        "artifacts",
        sa.Column("job", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_artifacts_job")),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name=op.f("fk_artifacts_sha256")),
        sa.PrimaryKeyConstraint("job", "name", name=op.f("pk_artifacts")),
    )
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"], unique=False)

    op.create_table(
        "attempts",
        sa.Column("submission_id", sa.String(length=100), nullable=False),
        sa.Column("job", sa.String(length=12), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("ticket_hash", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "succeeded",
                "failed",
                "cancelled",
                "lost",
                name="outcome",
                native_enum=False,
                create_constraint=True,
                length=20,
            ),
            nullable=True,
        ),
        sa.Column("failure", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("logs", sa.String(length=64), nullable=True),
        sa.CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name=op.f("ck_attempts_finished_has_outcome")),
        sa.CheckConstraint("epoch > 0", name=op.f("ck_attempts_epoch_is_positive")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_attempts_job")),
        sa.ForeignKeyConstraint(["logs"], ["blobs.sha256"], name=op.f("fk_attempts_logs")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job", "epoch", name=op.f("uq_attempts_job_epoch")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_attempts_token_hash")),
    )
    op.create_index(
        "one_live_attempt_per_job",
        "attempts",
        ["job"],
        unique=True,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )

    op.create_table(
        "derived_architectures",
        sa.Column("job", sa.String(length=12), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("architecture", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["architecture"], ["architectures.id"], name=op.f("fk_derived_architectures_architecture")
        ),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_derived_architectures_job")),
        sa.PrimaryKeyConstraint("job", "role", name=op.f("pk_derived_architectures")),
    )
    op.create_index("ix_derived_architectures_architecture", "derived_architectures", ["architecture"], unique=False)

    op.create_table(
        "job_edges",
        sa.Column("child", sa.String(length=12), nullable=False),
        sa.Column("parent", sa.String(length=12), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.CheckConstraint("child <> parent", name=op.f("ck_job_edges_not_its_own_parent")),
        sa.ForeignKeyConstraint(["child"], ["jobs.id"], name=op.f("fk_job_edges_child")),
        sa.ForeignKeyConstraint(["parent"], ["jobs.id"], name=op.f("fk_job_edges_parent")),
        sa.PrimaryKeyConstraint("child", "parent", name=op.f("pk_job_edges")),
    )
    op.create_index("ix_job_edges_parent", "job_edges", ["parent"], unique=False)

    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job", sa.String(length=12), nullable=False),
        sa.Column("attempt", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["attempt"], ["attempts.submission_id"], name=op.f("fk_checkpoints_attempt")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_checkpoints_job")),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name=op.f("fk_checkpoints_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("attempt", "sha256", name=op.f("uq_checkpoints_attempt_sha256")),
    )
    op.create_index("ix_checkpoints_job", "checkpoints", ["job"], unique=False)

    op.create_table(
        "events",
        sa.Column("job", sa.String(length=12), nullable=False),
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.String(length=100), nullable=True),
        sa.Column("worker_sequence", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["attempt"], ["attempts.submission_id"], name=op.f("fk_events_attempt")),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_events_job")),
        sa.PrimaryKeyConstraint("job", "sequence", name=op.f("pk_events")),
        sa.UniqueConstraint("attempt", "worker_sequence", name=op.f("uq_events_attempt_worker_sequence")),
    )


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("checkpoints")
    op.drop_table("job_edges")
    op.drop_table("derived_architectures")
    op.drop_table("attempts")
    op.drop_table("artifacts")
    op.drop_table("jobs")
    op.drop_table("latency_tables")
    op.drop_table("blobs")
    op.drop_table("architectures")
