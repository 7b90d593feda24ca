"""The latency table that a job reads, and the correction beside it."""

from typing import cast

from fasterseg_core.latency_calibration import Calibration, CalibrationDocument
from fasterseg_core.latency_table import LatencyTable, LatencyTableDocument
from services.client.attempt import AttemptClient


def read_table(attempt: AttemptClient, table_id: str) -> LatencyTable:
    """The table of an id, as measured."""
    return LatencyTable.from_document(cast(LatencyTableDocument, attempt.latency_table(table_id)))


def read_calibration(attempt: AttemptClient, table_id: str) -> Calibration | None:
    """The correction of the table's sums, if it has one."""
    document = attempt.calibration(table_id)
    return None if document is None else Calibration.from_document(cast(CalibrationDocument, document))
