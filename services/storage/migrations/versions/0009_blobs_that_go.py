"""A blob that is being removed says since when: nothing names it any more, though the store may still have it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("going_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("blobs", "going_at")
