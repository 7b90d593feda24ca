"""A profile job: the latency table of this device, and how well it predicts whole networks (appendix E)."""

from fasterseg_core.config import ProfileConfig
from fasterseg_core.figures import latency_fidelity
from fasterseg_core.latency_table import LatencyTable, RowState
from services.client.attempt import AttemptClient
from services.client.schemas import AttemptSuccess
from services.profiler.engines import open_runner
from services.profiler.fidelity import Fidelity, compare, random_architectures
from services.profiler.protocol import Protocol
from services.profiler.runners import Runner
from services.profiler.table_builder import build_table
from services.workers.following import follow_measurement
from services.workers.job import Job, config_of
from services.workers.outputs import json_object, store, store_json

FIDELITY_SHARE = 0.2  # of the job's time, roughly


def run(job: Job, attempt: AttemptClient) -> None:
    """Measures every operator of the space, then random networks whole."""
    config = config_of(job, ProfileConfig)
    runner = open_runner(config.engine, config.threads, config.precision)
    share = FIDELITY_SHARE if config.random_networks else 0.0
    table = follow_measurement(build_table(config, runner), "measure operators", 0.0, 1 - share, attempt)
    quarantined = {spec.key: row.reason for spec, row in table.rows.items() if row.state is RowState.QUARANTINED}
    result: dict[str, object] = {"rows": len(table.rows), "quarantined": quarantined}
    artifacts = []
    if config.random_networks:
        try:
            fidelity = _fidelity(config, table, runner, 1 - share, attempt)
        except ValueError as error:  # too few networks could be compared; the table is good all the same
            result["fidelity"] = str(error)
        else:
            document = fidelity.to_document()
            result |= {name: value for name, value in document.items() if name not in ("networks", "left_out")}
            predicted = [network.predicted_ms for network in fidelity.networks]
            measured = [network.measured_ms for network in fidelity.networks]
            artifacts = [
                store(attempt, "fidelity.png", latency_fidelity(predicted, measured)),
                store_json(attempt, "fidelity.json", document),
            ]
    attempt.succeed(
        AttemptSuccess(result=json_object(result), artifacts=artifacts, latency_table=json_object(table.to_document()))
    )


def _fidelity(
    config: ProfileConfig, table: LatencyTable, runner: Runner, begin: float, attempt: AttemptClient
) -> Fidelity:
    architectures = random_architectures(config.space, config.random_networks)
    protocol = Protocol(passes=config.passes, samples=config.samples)
    return follow_measurement(compare(architectures, table, runner, protocol), "measure networks", begin, 1.0, attempt)
