"""Architectures and latency tables: immutable documents under their digest, parsed before they are stored."""

import json
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from fasterseg_core.architecture import Architecture
from fasterseg_core.latency_calibration import Calibration
from fasterseg_core.latency_table import LatencyTable, RowState
from fasterseg_core.search_space import Operator
from services.client import schemas
from services.client.schemas import JsonObject
from services.storage.database import database_now, insert_if_absent
from services.storage.errors import InvalidRequest, NotFound
from services.storage.projects import project_of, share
from services.storage.tables import ArchitectureRow, DerivedArchitectureRow, JobRow, LatencyTableRow, ProjectDocumentRow

_Row = TypeVar("_Row", ArchitectureRow, LatencyTableRow)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Cell(_Document):
    operator: Operator
    downsample_rate: int
    expansion_ratio: int


class _Architecture(_Document):
    stem_ratio: int
    branches: list[list[_Cell]]


class _Resolution(_Document):
    height: int
    width: int


class _Fingerprint(_Document):
    engine: str
    engine_version: str
    device: str
    driver: str
    threads: int
    precision: str
    protocol: str
    resolution: _Resolution
    num_classes: int
    interpolation: str


class _LatencyTable(_Document):
    fingerprint: _Fingerprint
    rows: dict[str, JsonObject]


def parse_architecture(document: JsonObject, field: str = "document") -> Architecture:
    """The architecture of a document; InvalidRequest names the part that is wrong."""
    try:
        _Architecture.model_validate_json(json.dumps(document))
        return Architecture.from_document(document)  # type: ignore[arg-type]  # checked above
    except (ValidationError, ValueError) as error:
        raise _invalid(error, field) from error


def parse_latency_table(document: JsonObject, field: str = "latency_table") -> LatencyTable:
    """The latency table of a document; InvalidRequest names the part that is wrong."""
    try:
        _LatencyTable.model_validate_json(json.dumps(document))
        return LatencyTable.from_document(document)  # type: ignore[arg-type]  # checked above
    except (ValidationError, ValueError) as error:
        raise _invalid(error, field) from error


def add_architecture(
    session: Session, project: str, document: JsonObject, now: datetime, field: str = "document"
) -> str:
    """The id of an architecture that the project sees from now on, stored unless it was before."""
    architecture = parse_architecture(document, field)
    stored = json.loads(architecture.canonical_json())
    insert_if_absent(session, ArchitectureRow, id=architecture.digest, document=stored, created_at=now)
    share(session, project, architecture.digest)
    return architecture.digest


def add_derived_architecture(session: Session, job: JobRow, role: str, document: JsonObject, now: datetime) -> None:
    """Stores the architecture that a search derived for a role."""
    digest = add_architecture(session, job.project, document, now, f"architectures.{role}")
    session.add(DerivedArchitectureRow(job=job.id, role=role, architecture=digest))


def add_latency_table(
    session: Session, project: str, document: JsonObject, now: datetime, field: str = "latency_table"
) -> str:
    """The id of a latency table that the project sees from now on, stored unless it was before."""
    table = parse_latency_table(document, field)
    insert_if_absent(session, LatencyTableRow, id=table.digest, document=table.to_document(), created_at=now)
    share(session, project, table.digest)
    return table.digest


def add_calibration(session: Session, project: str, table: str, document: JsonObject) -> None:
    """Puts a calibration beside a project's table, once: what its estimates with this table say never changes again."""
    try:
        calibration = Calibration.from_document(document)  # type: ignore[arg-type]  # checked by it
    except ValueError as error:
        raise InvalidRequest.at("calibration", str(error)) from error
    row = session.get_one(ProjectDocumentRow, (project, table))
    if row.calibration is None:
        row.calibration = json.loads(json.dumps(calibration.to_document()))


def submit_architecture(session: Session, document: JsonObject) -> schemas.ArchitectureRecord:
    """The record of an architecture that a user sent."""
    return find_architecture(session, add_architecture(session, project_of(session), document, database_now(session)))


def submit_latency_table(session: Session, document: JsonObject) -> schemas.LatencyTableSummary:
    """The summary of a latency table that a user sent."""
    added = add_latency_table(session, project_of(session), document, database_now(session), "document")
    row = session.get_one(LatencyTableRow, added)
    return _table_summaries(session, [row])[0]


def find_architecture(session: Session, architecture: str) -> schemas.ArchitectureRecord:
    """One architecture with the first search that derived it; NotFound where there is none."""
    row = session.get(ArchitectureRow, architecture)
    if row is None:
        raise NotFound(f"there is no architecture {architecture}")
    return _architecture_records(session, [row])[0]


def page_of_architectures(session: Session, *, cursor: str | None, limit: int) -> schemas.ArchitecturePage:
    """A page of the newest architectures."""
    rows, next_cursor = _page(session, ArchitectureRow, cursor, limit)
    return schemas.ArchitecturePage(items=_architecture_records(session, rows), next_cursor=next_cursor)


def find_latency_table(session: Session, table: str) -> JsonObject:
    """The document of a latency table; NotFound where there is none."""
    row = session.get(LatencyTableRow, table)
    if row is None:
        raise NotFound(f"there is no latency table {table}")
    return row.document


def find_calibration(session: Session, table: str) -> Calibration | None:
    """The calibration beside a table, if it has one; NotFound where there is no such table."""
    own = select(ProjectDocumentRow.calibration).where(
        ProjectDocumentRow.project == project_of(session), ProjectDocumentRow.document == table
    )
    rows = session.scalars(own.join(LatencyTableRow, LatencyTableRow.id == ProjectDocumentRow.document)).all()
    if not rows:
        raise NotFound(f"there is no latency table {table}")
    (document,) = rows  # without the table's own, which takes longer to read than an estimate to make
    return Calibration.from_document(document) if document else None  # type: ignore[arg-type]  # checked when stored


def find_calibration_record(session: Session, table: str) -> schemas.CalibrationRecord:
    """The calibration beside a table as its document; NotFound where there is no such table."""
    calibration = find_calibration(session, table)
    return schemas.CalibrationRecord(calibration=calibration and json.loads(json.dumps(calibration.to_document())))


def page_of_latency_tables(session: Session, *, cursor: str | None, limit: int) -> schemas.LatencyTablePage:
    """A page of the newest latency tables, each with the first job that measured it."""
    rows, next_cursor = _page(session, LatencyTableRow, cursor, limit)
    return schemas.LatencyTablePage(items=_table_summaries(session, rows), next_cursor=next_cursor)


def _page(session: Session, table: type[_Row], cursor: str | None, limit: int) -> tuple[list[_Row], str | None]:
    """The newest rows that follow that of an id, and the id of their last where more may follow."""
    query = select(table).order_by(table.created_at.desc(), table.id).limit(limit)
    if cursor is not None:
        last = session.get(table, cursor)
        if last is None:
            raise InvalidRequest.at("cursor", "is none of this list: begin without one")
        is_as_old = and_(table.created_at == last.created_at, table.id > last.id)
        query = query.where(or_(table.created_at < last.created_at, is_as_old))
    rows = list(session.scalars(query))
    return rows, rows[-1].id if len(rows) == limit else None


def _table_summaries(session: Session, rows: list[LatencyTableRow]) -> list[schemas.LatencyTableSummary]:
    first = select(JobRow.latency_table, JobRow.id).where(JobRow.latency_table.in_([row.id for row in rows]))
    jobs = dict(session.execute(first.order_by(JobRow.number.desc())).all())
    summaries = []
    for row in rows:
        document = _LatencyTable.model_validate(row.document)
        summaries.append(
            schemas.LatencyTableSummary(
                id=row.id,
                fingerprint=document.fingerprint.model_dump(),
                rows=len(document.rows),
                quarantined=sum(values["state"] == RowState.QUARANTINED for values in document.rows.values()),
                job=jobs.get(row.id),
                created_at=row.created_at,
            )
        )
    return summaries


def _architecture_records(session: Session, rows: list[ArchitectureRow]) -> list[schemas.ArchitectureRecord]:
    derived = (
        select(DerivedArchitectureRow)
        .join(JobRow, JobRow.id == DerivedArchitectureRow.job)
        .where(DerivedArchitectureRow.architecture.in_([row.id for row in rows]))
        .order_by(JobRow.number.desc(), DerivedArchitectureRow.role.desc())
    )
    first = {row.architecture: row for row in session.scalars(derived)}
    return [
        schemas.ArchitectureRecord(
            id=row.id,
            document=row.document,
            job=first[row.id].job if row.id in first else None,
            role=first[row.id].role if row.id in first else None,
            created_at=row.created_at,
        )
        for row in rows
    ]


def _invalid(error: ValidationError | ValueError, field: str) -> InvalidRequest:
    if isinstance(error, ValidationError):
        return InvalidRequest.below(field, error)
    return InvalidRequest.at(field, str(error))
