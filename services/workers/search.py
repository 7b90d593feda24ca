"""A search job: pretraining, co-search, and the architectures of teacher and student."""

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.config import Role, SearchConfig
from fasterseg_core.datasets.transforms import scaled_size
from fasterseg_core.drawing import architecture_svg
from fasterseg_core.figures import search_curves
from fasterseg_core.search import Search
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess
from services.workers.data import load_data
from services.workers.job import Job, config_of
from services.workers.latency_tables import read_calibration, read_table
from services.workers.outputs import history, json_object, store, store_json
from services.workers.training import train


def run(job: Job, attempt: AttemptClient) -> None:
    """Searches from the latest checkpoint on, or afresh, for latencies as whole networks have them."""
    config = config_of(job, SearchConfig)
    assert job.inputs.latency_table is not None, "the control plane refuses a search without a table"
    table = read_table(attempt, job.inputs.latency_table)
    calibration = read_calibration(attempt, job.inputs.latency_table)
    data = load_data(job, config.dataset, "train", scaled_size(config.resolution, config.image_scale))
    search = Search(config, calibration.corrected(table) if calibration else table, data, job.device)
    watched = train(search, CheckpointKind.SEARCH, job, attempt, config.space.expansion_ratios)

    selections = {role: search.select(role) for role in Role}
    architectures = {role.value: selection.derivation.architecture for role, selection in selections.items()}
    searched = [report for report in search.history if report.phase == "search"]
    curves = search_curves(
        [report.epoch for report in searched],
        {"student": [report.miou for report in searched]},
        {"student": [report.latency_ms for report in searched]},
    )
    attempt.succeed(
        AttemptSuccess(
            result=json_object(
                {
                    "granularity_weights": search.models.granularity_weights,
                    "split": search.split.digest,
                    **{
                        role.value: {"holdout_miou": selection.miou, "predicted_ms": selection.latency_ms}
                        for role, selection in selections.items()
                    },
                }
            ),
            artifacts=[
                store(attempt, "curves.png", curves),
                watched,
                store_json(attempt, "history.json", history(search.history)),
                *(
                    store(attempt, f"{role}.svg", architecture_svg(architecture).encode())
                    for role, architecture in architectures.items()
                ),
            ],
            architectures={role: json_object(a.to_document()) for role, a in architectures.items()},
        )
    )
