"""Inputs of a job, taken from what its parents made."""

from services.client.schemas import JobKind
from services.storage.database import Database
from services.storage.inputs import known_inputs, resolve_inputs
from services.storage.jobs import find_job
from services.storage.worker_writes import succeed
from tests.storage.builders import (
    a_blob,
    a_job,
    a_latency_table,
    a_started_worker,
    a_success,
    an_architecture,
    an_artifact,
)


def run_next(database: Database, kind: JobKind) -> None:
    worker = a_started_worker(database)
    with database.writing.begin() as session:
        a_blob(session)
        succeed(session, worker.submission_id, worker.token, a_success(kind))


def test_inputs_are_unknown_before_the_parent_has_succeeded(database: Database):
    profile = a_job(database)
    search = a_job(database, JobKind.SEARCH, after=[profile], sources={"latency_table": profile})

    with database.reading() as session:
        assert known_inputs(session, find_job(session, search)).latency_table is None


def test_a_search_reads_the_table_of_its_profile_job(database: Database):
    profile = a_job(database)
    search = a_job(database, JobKind.SEARCH, after=[profile], sources={"latency_table": profile})
    run_next(database, JobKind.PROFILE)

    with database.reading() as session:
        inputs = resolve_inputs(session, find_job(session, search))
    assert inputs.latency_table == a_latency_table().digest


def test_a_retrain_job_reads_the_architecture_of_its_role(database: Database):
    search = a_job(database, JobKind.SEARCH)
    retrain = a_job(
        database, JobKind.RETRAIN, after=[search], sources={"architecture": search}, spec={"role": "teacher"}
    )
    run_next(database, JobKind.SEARCH)

    with database.reading() as session:
        inputs = resolve_inputs(session, find_job(session, retrain))
    assert inputs.architecture == an_architecture(8).digest


def test_an_evaluation_reads_the_network_of_its_retrain_job(database: Database):
    retrain = a_job(database, JobKind.RETRAIN)
    evaluate = a_job(database, JobKind.EVALUATE, after=[retrain], sources={"network": retrain})
    run_next(database, JobKind.RETRAIN)

    with database.reading() as session:
        assert known_inputs(session, find_job(session, evaluate)).network == retrain
        assert resolve_inputs(session, find_job(session, evaluate)).network == an_artifact().sha256
