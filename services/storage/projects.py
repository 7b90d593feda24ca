"""Projects: a session that belongs to one sees the jobs and documents of that project and no others.

A project is a name that tokens bear: there is none to make, and what nobody has limited has no limit.
"""

from sqlalchemy import event, select
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from services.client.schemas import ProjectLimits, ProjectRecord
from services.storage.database import insert_if_absent
from services.storage.limits import used_hours_by_project, used_hours_of_project
from services.storage.tables import ArchitectureRow, JobRow, LatencyTableRow, ProjectDocumentRow, ProjectRow, TokenRow

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


def widen(session: Session) -> None:
    """Lets a session see all projects again."""
    session.info.clear()


def project_of(session: Session) -> str:
    """The project that a session was narrowed to."""
    project: str = session.info[_PROJECT]
    return project


def share(session: Session, project: str, document: str) -> None:
    """Lets a project see a latency table or an architecture."""
    insert_if_absent(session, ProjectDocumentRow, project=project, document=document)


def show_project(session: Session, project: str) -> ProjectRecord:
    """What the jobs of a project have used, and may use."""
    row = session.get(ProjectRow, project)
    return _record(project, None if row is None else row.max_hours, used_hours_of_project(session, project))


def list_projects(session: Session) -> list[ProjectRecord]:
    """Every project that a token or a job is of, or that an operator has limited, by name."""
    limits = {row.name: row.max_hours for row in session.scalars(select(ProjectRow))}
    used = used_hours_by_project(session)
    names = limits.keys() | used.keys() | set(session.scalars(select(TokenRow.project).distinct()))
    return [_record(name, limits.get(name), used.get(name, 0.0)) for name in sorted(names)]


def locked_project(session: Session, project: str) -> ProjectRow:
    """The row of a project, held until the transaction ends."""
    insert_if_absent(session, ProjectRow, name=project)
    query = select(ProjectRow).where(ProjectRow.name == project).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def limit_project(session: Session, project: str, limits: ProjectLimits) -> ProjectRecord:
    """The project with these limits in the place of those that it had."""
    locked_project(session, project).max_hours = limits.max_hours
    session.flush()
    return show_project(session, project)


def _record(project: str, max_hours: float | None, used: float) -> ProjectRecord:
    left = None if max_hours is None else max(max_hours - used, 0.0)
    return ProjectRecord(name=project, max_hours=max_hours, used_hours=used, left_hours=left)


@event.listens_for(Session, "do_orm_execute")
def _narrowed(state: ORMExecuteState) -> None:
    criteria = state.session.info.get(_CRITERIA)
    if criteria and state.is_orm_statement and not state.is_insert and not state.is_column_load:
        state.statement = state.statement.options(*criteria)
