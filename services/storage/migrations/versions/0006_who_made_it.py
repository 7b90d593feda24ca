"""Jobs and tokens say who made them; of those that were there before, nobody knows."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("created_by", sa.String(260), nullable=True))
    op.add_column("tokens", sa.Column("created_by", sa.String(260), nullable=True))


def downgrade() -> None:
    op.drop_column("tokens", "created_by")
    op.drop_column("jobs", "created_by")
