import pickle

import pytest

from services.client.errors import (
    CorruptArtifactError,
    FasterSegError,
    LeaseLost,
    ProblemError,
    StoreError,
    UnexpectedAnswerError,
    UnreachableError,
)
from services.client.schemas import InvalidField, Problem

PROBLEM = Problem(
    title="Invalid request",
    status=422,
    detail="spec.seed: must be positive",
    errors=[
        InvalidField(field="spec.seed", message="must be positive"),
        InvalidField(field="spec.crop.height", message="use 64 or more"),
    ],
)


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("http://127.0.0.1:8000", "refused"),
        ProblemError(PROBLEM, 5.0),
        UnexpectedAnswerError("http://127.0.0.1:8000", "no JSON"),
        StoreError("http://127.0.0.1:9000", "503 SlowDown", "SlowDown", 0.0),
        CorruptArtifactError("0" * 64, "1" * 64),
        LeaseLost("redeemed"),
    ],
)
def test_errors_survive_the_way_between_processes(error: FasterSegError) -> None:
    received = pickle.loads(pickle.dumps(error))

    assert type(received) is type(error)
    assert str(received) == str(error)
    assert received.retry_after_seconds == error.retry_after_seconds


def test_a_failure_of_the_service_names_the_request_for_its_operator() -> None:
    failed = Problem(title="Unavailable", status=503, detail="the database does not answer", request_id="4f1d2c3b")

    assert str(ProblemError(failed)) == "503 Unavailable: the database does not answer (request 4f1d2c3b)"
    assert str(ProblemError(PROBLEM.model_copy(update={"request_id": "4f1d2c3b"}))) == str(ProblemError(PROBLEM))


def test_a_problem_names_each_refused_field_once() -> None:
    assert str(ProblemError(PROBLEM)) == (
        "422 Invalid request: spec.seed: must be positive\n  spec.crop.height: use 64 or more"
    )
