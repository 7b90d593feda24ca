"""Alembic's entry: works on the connection, and compares with the tables, that `database.migrating` hands over."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from services.storage.tables import UtcDateTime

_UNREADABLE = {"sqlite": ["ix_jobs_claim"]}  # indexes of which Alembic does not see the order of a column


def _render(_kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """A migration names SQLAlchemy's own types only: ours may change after it was written."""
    return "sa.DateTime(timezone=True)" if isinstance(item, UtcDateTime) else False


def _is_readable(_item: object, name: str | None, *_: object) -> bool:
    return name not in _UNREADABLE.get(context.get_context().dialect.name, [])


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["declared"],
    render_item=_render,
    include_object=_is_readable,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
