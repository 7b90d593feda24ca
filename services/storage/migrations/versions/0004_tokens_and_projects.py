"""Users have tokens, and jobs and documents belong to projects; what there was belongs to the project `default`."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


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
        sa.PrimaryKeyConstraint("project", "document", name="pk_project_documents"),
    )
    for table in ("latency_tables", "architectures"):
        op.execute(f"INSERT INTO project_documents (project, document) SELECT 'default', id FROM {table}")
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("project", sa.String(60), server_default="default", nullable=False))
        jobs.drop_constraint("uq_jobs_idempotency_key", type_="unique")
        jobs.create_unique_constraint("uq_jobs_project_idempotency_key", ["project", "idempotency_key"])
    op.create_index("ix_jobs_project", "jobs", ["project", "number"])


def downgrade() -> None:
    op.drop_index("ix_jobs_project", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("uq_jobs_project_idempotency_key", type_="unique")
        jobs.create_unique_constraint("uq_jobs_idempotency_key", ["idempotency_key"])
        jobs.drop_column("project")
    op.drop_table("project_documents")
    op.drop_index("ix_tokens_project", "tokens")
    op.drop_table("tokens")
