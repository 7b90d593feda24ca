"""Users have tokens, and jobs and documents belong to projects; what there was belongs to the project `default`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CLAIM: tuple[str | sa.TextClause, ...] = ("state", sa.text("priority DESC"), "number")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("project", sa.String(60), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(20), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("secret_hash", name="uq_tokens_secret_hash"),
        sa.CheckConstraint("scope IN ('read', 'submit', 'admin', 'operator')", name="scope"),
    )
    op.create_index("ix_tokens_project", "tokens", ["project"])
    op.create_table(
        "project_documents",
        sa.Column("project", sa.String(60), nullable=False),
        sa.Column("document", sa.String(64), nullable=False),
        sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("project", "document", name="pk_project_documents"),
    )
    op.execute("INSERT INTO project_documents (project, document) SELECT 'default', id FROM architectures")
    columns = "(project, document, calibration)"
    op.execute(f"INSERT INTO project_documents {columns} SELECT 'default', id, calibration FROM latency_tables")
    op.drop_column("latency_tables", "calibration")
    op.drop_index("ix_jobs_claim", "jobs")  # SQLite would make it anew without its order
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("project", sa.String(60), server_default="default", nullable=False))
        jobs.drop_constraint("uq_jobs_idempotency_key", type_="unique")
        jobs.create_unique_constraint("uq_jobs_project_idempotency_key", ["project", "idempotency_key"])
    op.create_index("ix_jobs_claim", "jobs", CLAIM)
    op.create_index("ix_jobs_project", "jobs", ["project", "number"])


def downgrade() -> None:
    op.add_column("latency_tables", sa.Column("calibration", sa.JSON(none_as_null=True), nullable=True))
    own = "SELECT calibration FROM project_documents WHERE document = latency_tables.id AND project = 'default'"
    op.execute(f"UPDATE latency_tables SET calibration = ({own})")
    op.execute("UPDATE jobs SET idempotency_key = NULL WHERE project <> 'default'")  # it may be another project's, too
    op.drop_index("ix_jobs_project", "jobs")
    op.drop_index("ix_jobs_claim", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("uq_jobs_project_idempotency_key", type_="unique")
        jobs.create_unique_constraint("uq_jobs_idempotency_key", ["idempotency_key"])
        jobs.drop_column("project")
    op.create_index("ix_jobs_claim", "jobs", CLAIM)
    op.drop_table("project_documents")
    op.drop_index("ix_tokens_project", "tokens")
    op.drop_table("tokens")
