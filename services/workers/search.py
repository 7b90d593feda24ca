"""A search job: pretraining, co-search, and the architectures of teacher and student."""

from collections.abc import Iterable, Iterator
from typing import cast

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.config import Role, SearchConfig
from fasterseg_core.datasets.transforms import scaled_size
from fasterseg_core.drawing import architecture_svg
from fasterseg_core.figures import search_curves
from fasterseg_core.reports import EpochReport, Report
from fasterseg_core.search import Search, SearchState
from services.client.attempt import AttemptClient
from services.client.schemas import AttemptSuccess
from services.workers.checkpoints import State, resume
from services.workers.data import load_data
from services.workers.event_file import EVENT_FILE, StepsState, event_file
from services.workers.following import follow
from services.workers.job import Job, config_of
from services.workers.outputs import history, json_object, store, store_json
from services.workers.tables import read_calibration, read_table


def run(job: Job, attempt: AttemptClient) -> None:
    """Searches from the latest checkpoint on, or afresh, for latencies as whole networks have them."""
    config = config_of(job, SearchConfig)
    assert job.inputs.latency_table is not None, "the control plane refuses a search without a table"
    table = read_table(attempt, job.inputs.latency_table)
    calibration = read_calibration(attempt, job.inputs.latency_table)
    data = load_data(job, config.dataset, "train", scaled_size(config.resolution, config.image_scale))
    search = Search(config, calibration.corrected(table) if calibration else table, data, job.device)
    kind = CheckpointKind.SEARCH
    with event_file(job.tensorboard, config.space.expansion_ratios) as events:

        def load(state: State) -> None:
            search.load_state_dict(cast(SearchState, state))
            events.load(cast(StepsState, state["steps"]), search.history)

        def state() -> State:
            return {**search.state_dict(), "steps": events.state()}

        last = resume(load, kind, job.checkpoints, attempt)
        follow(warned(events.recorded(search.run()), attempt), state, kind, last, attempt, job.metrics)
        watched = store(attempt, EVENT_FILE, events.finished())

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


def warned(reports: Iterable[Report], attempt: AttemptClient) -> Iterator[Report]:
    """The same reports; each epoch's warning of a collapse is left as an event."""
    for report in reports:
        if isinstance(report, EpochReport) and report.warning is not None:
            attempt.event("warning", {"phase": report.phase, "epoch": report.epoch, "message": report.warning})
        yield report
