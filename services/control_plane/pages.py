"""How a request names a page of a list: where it begins, and how much it has."""

from typing import Annotated

from fastapi import Query

from services.client.schemas import Sha256

_DESCRIPTION = "next_cursor of the page before"

JobCursor = Annotated[int | None, Query(ge=0, lt=2**31, description=_DESCRIPTION)]
DocumentCursor = Annotated[Sha256 | None, Query(description=_DESCRIPTION)]
Limit = Annotated[int, Query(ge=1, le=200)]
