"""Alembic's entry: migrates the connection that `database.migrate` hands over."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from services.storage.tables import Table, UtcDateTime


def _render(_kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """A migration names SQLAlchemy's own types only: ours may change after it was written."""
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_item=_render,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
