"""The latency table of a profile job, measured batch by batch: rows are kept as they finish, and never measured twice.

Rows come from an earlier attempt or from the table that the job names; those of another fingerprint are never taken.
"""

import time
from collections.abc import Callable, Generator
from typing import cast

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.config import ProfileConfig
from fasterseg_core.latency_table import Fingerprint, LatencyTable, LatencyTableDocument
from fasterseg_core.operator_specs import OperatorSpec
from services.client.attempt import AttemptClient
from services.profiler.protocol import MeasurementProgress
from services.profiler.runners import Runner
from services.profiler.table_builder import build_table, fingerprint, fingerprint_differences
from services.workers.checkpoints import Rhythm, State, keep, resume
from services.workers.following import follow_measurement, measurement_progress
from services.workers.job import Job
from services.workers.latency_tables import read_table
from services.workers.outputs import json_object

PHASE = "measure operators"


def measure_table(job: Job, config: ProfileConfig, runner: Runner, end: float, attempt: AttemptClient) -> LatencyTable:
    """The table, measured from where an earlier attempt was, telling how far it is up to a fraction of the job.

    Raises:
        Stopped: the job was cancelled or paused.
        ValueError: the table that the job names is of another fingerprint; the message says in what.
    """
    known = known_rows(job, fingerprint(config, runner), attempt)
    building = build_table(config, runner, known.rows)
    return follow_measurement(kept(building, known, end, attempt), PHASE, 0.0, end, attempt)


def known_rows(job: Job, now: Fingerprint, attempt: AttemptClient) -> LatencyTable:
    """The rows that this attempt need not measure, as an incomplete table of its own fingerprint."""
    rows = {} if job.inputs.latency_table is None else dict(_named_table(job.inputs.latency_table, now, attempt).rows)

    def load(state: State) -> None:
        finished = LatencyTable.from_document(cast(LatencyTableDocument, state))
        differing = fingerprint_differences(finished.fingerprint, now)
        if differing:
            attempt.event("rows_dropped", {"rows": len(finished.rows), "reason": "; ".join(differing)})
        else:
            rows.update(finished.rows)

    resume(load, CheckpointKind.MEASUREMENT, job.checkpoints, attempt)
    return LatencyTable(now, rows)


def kept(
    building: Generator[MeasurementProgress, None, LatencyTable],
    known: LatencyTable,
    end: float,
    attempt: AttemptClient,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[MeasurementProgress, None, LatencyTable]:
    """The same reports and table; the rows of finished batches are kept, as often as `Rhythm` allows."""
    rows, rhythm = dict(known.rows), Rhythm(clock)
    while True:
        try:
            report = next(building)
        except StopIteration as finished:
            table: LatencyTable = finished.value
            return table
        if report.finished:
            rows |= {OperatorSpec.from_key(key): row for key, row in report.finished.items()}
            if rhythm.is_due(epoch_ended=True):
                with rhythm.keeping():
                    state = json_object(LatencyTable(known.fingerprint, rows).to_document())
                    keep(state, CheckpointKind.MEASUREMENT, measurement_progress(report, PHASE, 0.0, end), attempt)
        yield report


def _named_table(table_id: str, now: Fingerprint, attempt: AttemptClient) -> LatencyTable:
    """The measured rows of an earlier table; quarantined and noisy ones are measured anew."""
    table = read_table(attempt, table_id)
    differing = fingerprint_differences(table.fingerprint, now)
    if differing:
        raise ValueError(
            f"inputs.latency_table: rows of latency table {table_id[:12]} cannot be taken over, "
            f"its {'; its '.join(differing)}; leave it out to measure every row"
        )
    rows = {spec: row for spec, row in table.rows.items() if row.is_sound}
    return LatencyTable(now, rows)
