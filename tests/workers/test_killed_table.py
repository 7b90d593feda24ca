"""Real processes that measure a latency table, killed by SIGKILL in the middle of a batch: the next one goes on."""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fasterseg_core.latency_table import LatencyTable
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess, CheckpointRef
from services.profiler.table_builder import build_table
from services.workers.measured_table import measure_table
from services.workers.outputs import json_object
from tests.client.fake_control_plane import SUBMISSION_ID, TOKEN, FakeControlPlane, serving
from tests.profiler.builders import drain
from tests.profiler.fake_runner import MacsRunner
from tests.workers.fakes import a_job
from tests.workers.logging_runner import BATCH, CONFIG, ROWS, LoggingRunner

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # torch is loaded once


def work(url: str, checkpoints: Sequence[CheckpointRef], log: Path, hang_at: int | None) -> None:
    """An attempt of a profile job."""
    torch.set_num_threads(1)
    job = a_job(checkpoints=list(checkpoints))
    with AttemptClient(url, SUBMISSION_ID, token=TOKEN, heartbeat_seconds=0.05) as attempt:
        table = measure_table(job, CONFIG, LoggingRunner(log, hang_at), 1.0, attempt)
        attempt.succeed(AttemptSuccess(result={}, latency_table=json_object(table.to_document())))


def attempted(plane: FakeControlPlane, log: Path, hang_at: int | None) -> list[str]:
    """The keys that a process timed until it was killed within its second batch; to its end where none is given."""
    kept = len(plane.checkpoints)
    process = PROCESSES.Process(target=work, args=(plane.url, plane.checkpoints[::-1], log, hang_at))
    process.start()
    try:
        if hang_at is not None:
            plane.wait_until(lambda: _lines(log))
            plane.wait_until(lambda: len(plane.checkpoints) > kept and len(_lines(log)) == hang_at)
    finally:
        if hang_at is not None:
            process.kill()
        process.join()
    assert process.exitcode == (0 if hang_at is None else -9)
    process.close()
    return _lines(log)


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_a_build_killed_twice_measures_no_finished_row_again(tmp_path: Path):
    with serving(FakeControlPlane()) as plane:
        first = attempted(plane, tmp_path / "first", BATCH + 7)
        second = attempted(plane, tmp_path / "second", BATCH + 3)
        third = attempted(plane, tmp_path / "third", None)

    finished = Counter(first[:BATCH] + second[:BATCH] + third)
    assert finished == Counter(spec.key for spec in ROWS)  # each once
    assert not set(first[:BATCH]) & {*second, *third}
    assert not set(second[:BATCH]) & {*third}
    success = AttemptSuccess.model_validate_json(plane.end_body)
    assert plane.end == "succeed"
    table, undisturbed = LatencyTable.from_document(success.latency_table), drain(build_table(CONFIG, MacsRunner()))[1]
    assert table.fingerprint == undisturbed.fingerprint
    assert {spec: row.milliseconds for spec, row in table.rows.items()} == pytest.approx(
        {spec: row.milliseconds for spec, row in undisturbed.rows.items()}
    )
