"""An attempt that was handed to Ray again knows the ticket before, too: Ray may start the worker that has that one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("earlier_ticket_hash", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "earlier_ticket_hash")
