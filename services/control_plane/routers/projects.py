"""Projects: what their jobs have used, and may use."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from services.client.schemas import Project, ProjectLimits, ProjectPage, ProjectRecord, Scope
from services.control_plane.access import enter
from services.control_plane.dependencies import MAKES_RUNNABLE, Operator, Reader
from services.control_plane.entity_tags import (
    CHANGED,
    UNCHANGED,
    IfMatch,
    IfNoneMatch,
    require_project_unchanged,
    tagged,
)
from services.storage.projects import limit_project, list_projects, show_project, widen

router = APIRouter(prefix="/projects", tags=["projects"])

Name = Annotated[Project, Path()]


@router.get("")
def list_(reader: Reader) -> ProjectPage:
    """The token's project, or all for an operator, by name."""
    if not reader.admission.scope.covers(Scope.OPERATOR):
        return ProjectPage(items=[show_project(reader.session, reader.admission.project)])
    widen(reader.session)
    return ProjectPage(items=list_projects(reader.session))


@router.get("/{name}", response_model=ProjectRecord, responses=UNCHANGED)
def show(name: Name, reader: Reader, response: Response, if_none_match: IfNoneMatch = None) -> ProjectRecord | Response:
    """The token's project, or any for an operator. Its ETag changes with the hours that are used, too."""
    enter(reader.session, reader.admission, name)
    return tagged(show_project(reader.session, name), response, if_none_match)


@router.put("/{name}", dependencies=[MAKES_RUNNABLE], responses=CHANGED)
def limit(name: Name, limits: ProjectLimits, operator: Operator, if_match: IfMatch = None) -> ProjectRecord:
    """Limits a project. Once its hours are used, none of its jobs starts or goes on until it has more."""
    enter(operator.session, operator.admission, name)
    require_project_unchanged(operator.session, name, if_match)
    return limit_project(operator.session, name, limits)
