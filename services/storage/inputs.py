"""What a job reads: named by its submission, or taken from what its parents made."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.client.attempt_schemas import ResolvedInputs
from services.client.schemas import Inputs
from services.storage.jobs import find_job
from services.storage.tables import ArtifactRow, DerivedArchitectureRow, JobRow

NETWORK_ARTIFACT = "network.safetensors"


def known_inputs(session: Session, job: JobRow) -> Inputs:
    """The inputs of a job as far as its parents have made them."""
    known = dict(job.inputs)
    for name, source in job.sources.items():
        known[name] = _made_by(session, job, name, str(source))
    return Inputs.model_validate(known)


def resolve_inputs(session: Session, job: JobRow) -> ResolvedInputs:
    """The digests that the worker of a job reads; its parents have succeeded."""
    inputs = known_inputs(session, job)
    return ResolvedInputs(
        latency_table=inputs.latency_table,
        architecture=inputs.architecture,
        network=network_of(session, inputs.network) if inputs.network else None,
        teacher=network_of(session, inputs.teacher) if inputs.teacher else None,
    )


def network_of(session: Session, retrain_job: str) -> str | None:
    """The digest of the network that a retrain job trained; none before it has."""
    artifact = select(ArtifactRow.sha256).where(ArtifactRow.job == retrain_job, ArtifactRow.name == NETWORK_ARTIFACT)
    return session.scalar(artifact)


def trained_architecture(session: Session, retrain_job: str) -> str | None:
    """The digest of the architecture that a retrain job trained; none before it has."""
    trained = select(DerivedArchitectureRow.architecture).where(DerivedArchitectureRow.job == retrain_job)
    return session.scalar(trained)


def _made_by(session: Session, job: JobRow, name: str, source: str) -> str | None:
    match name:
        case "latency_table":
            return find_job(session, source).latency_table
        case "architecture":
            derived = select(DerivedArchitectureRow.architecture).where(
                DerivedArchitectureRow.job == source, DerivedArchitectureRow.role == job.spec["role"]
            )
            return session.scalar(derived)
        case _:
            return source  # network and teacher are ids of jobs
