"""Projects: a session that belongs to one sees the jobs and documents of that project and no others."""

from sqlalchemy import event, select
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from services.storage.database import insert_if_absent
from services.storage.tables import ArchitectureRow, JobRow, LatencyTableRow, ProjectDocumentRow

_PROJECT, _CRITERIA = "project", "criteria"  # in a session's info


def narrow(session: Session, project: str) -> None:
    """Lets the session see, and change, a project only."""
    documents = select(ProjectDocumentRow.document).where(ProjectDocumentRow.project == project)
    session.info[_PROJECT] = project
    session.info[_CRITERIA] = [
        with_loader_criteria(JobRow, JobRow.project == project, include_aliases=True),
        with_loader_criteria(LatencyTableRow, LatencyTableRow.id.in_(documents)),
        with_loader_criteria(ArchitectureRow, ArchitectureRow.id.in_(documents)),
    ]


def project_of(session: Session) -> str:
    """The project that a session was narrowed to."""
    project: str = session.info[_PROJECT]
    return project


def share(session: Session, project: str, document: str) -> None:
    """Lets a project see a latency table or an architecture."""
    insert_if_absent(session, ProjectDocumentRow, project=project, document=document)


@event.listens_for(Session, "do_orm_execute")
def _narrowed(state: ORMExecuteState) -> None:
    criteria = state.session.info.get(_CRITERIA)
    if criteria and state.is_orm_statement and not state.is_insert and not state.is_column_load:
        state.statement = state.statement.options(*criteria)
