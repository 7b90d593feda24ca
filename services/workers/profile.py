"""A profile job: the latency table of this device, and how well it predicts whole networks (appendix E)."""

from fasterseg_core.config import ProfileConfig
from fasterseg_core.latency_table import LatencyTable, RowState
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess
from services.profiler.fidelity import FidelityReport, report
from services.profiler.measured_networks import measure_networks
from services.profiler.protocol import protocol_of
from services.profiler.random_networks import random_architectures
from services.profiler.runners import Runner
from services.workers.following import follow_measurement
from services.workers.job import Job, config_of
from services.workers.measured_table import measure_table
from services.workers.measuring import runner_alone
from services.workers.outputs import json_object, store, store_json

FIDELITY_SHARE = 0.2  # of the job's time, roughly


def run(job: Job, attempt: AttemptClient) -> None:
    """Measures every operator of the space, then random networks whole."""
    config = config_of(job, ProfileConfig)
    with runner_alone(config, job, attempt) as runner:
        success = _measured(job, config, runner, attempt)
    attempt.succeed(success)


def _measured(job: Job, config: ProfileConfig, runner: Runner, attempt: AttemptClient) -> AttemptSuccess:
    share = FIDELITY_SHARE if config.random_networks else 0.0
    table = measure_table(job, config, runner, 1 - share, attempt)
    quarantined = {spec.key: row.reason for spec, row in table.rows.items() if row.state is RowState.QUARANTINED}
    noisy = {spec.key: row.reason for spec, row in table.rows.items() if row.state is RowState.MEASURED and row.reason}
    result: dict[str, object] = {"rows": len(table.rows), "quarantined": quarantined, "noisy": noisy}
    artifacts, calibration = [], None
    if config.random_networks:
        try:
            fidelity = _fidelity(config, table, runner, 1 - share, attempt)
        except ValueError as error:  # too few networks could be compared; the table is good all the same
            result["fidelity"] = str(error)
        else:
            from fasterseg_core.figures import latency_fidelity  # brings matplotlib, which the first row does not need

            document = fidelity.to_document()
            calibration = json_object(document["calibration"])
            result |= {"fidelity": document["errors"], "calibration": document["calibration"]}
            artifacts = [
                store(attempt, "fidelity.png", latency_fidelity(fidelity.calibrated_ms, fidelity.measured_ms)),
                store_json(attempt, "fidelity.json", document),
            ]
    return AttemptSuccess(
        result=json_object(result),
        artifacts=artifacts,
        latency_table=json_object(table.to_document()),
        calibration=calibration,
    )


def _fidelity(
    config: ProfileConfig, table: LatencyTable, runner: Runner, begin: float, attempt: AttemptClient
) -> FidelityReport:
    """Random networks measured whole: some calibrate, the others are held out."""
    architectures = random_architectures(config.space, config.calibration_networks + config.random_networks)
    measured = follow_measurement(
        measure_networks(architectures, table, runner, protocol_of(config)), "measure networks", begin, 1.0, attempt
    )
    return report(measured, config.calibration_networks)
