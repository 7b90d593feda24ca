"""A retrain job: a derived network trained from scratch, the student distilled where a teacher is given."""

from typing import cast

from fasterseg_core.architecture import Architecture, ArchitectureDocument
from fasterseg_core.config import RetrainConfig
from fasterseg_core.datasets.transforms import scaled_size
from fasterseg_core.figures import training_curves
from fasterseg_core.network import load_network, save_network
from fasterseg_core.retrain import Retrain, RetrainState
from services.client.attempt import AttemptClient
from services.client.schemas import AttemptSuccess
from services.workers.data import load_data
from services.workers.following import follow, restored
from services.workers.job import Job, config_of
from services.workers.outputs import history, json_object, store, store_json


def run(job: Job, attempt: AttemptClient) -> None:
    """Trains from the latest checkpoint on, or afresh."""
    config = config_of(job, RetrainConfig)
    assert job.inputs.architecture is not None, "the control plane refuses a retraining without an architecture"
    document = cast(ArchitectureDocument, attempt.architecture(job.inputs.architecture))
    data = load_data(job, config.dataset, "train", scaled_size(config.resolution, max(config.scales)))
    teacher = None if job.inputs.teacher is None else load_network(attempt.download(job.inputs.teacher))
    training = Retrain(config, Architecture.from_document(document), data, job.device, teacher)
    if job.checkpoint is not None:
        training.load_state_dict(cast(RetrainState, restored(attempt, job.checkpoint)))
    follow(training.run(), lambda: cast(dict[str, object], training.state_dict()), attempt)

    network = training.best_network()
    reports = training.history
    curves = training_curves(
        [report.epoch for report in reports],
        {config.role.value: [report.loss for report in reports]},
        {config.role.value: [report.miou for report in reports]},
    )
    attempt.succeed(
        AttemptSuccess(
            result=json_object(
                {
                    "holdout_miou": training.best_miou,
                    "parameters": network.num_parameters(),
                    "distilled": teacher is not None,
                    "split": training.split.digest,
                }
            ),
            artifacts=[
                store(attempt, "network.pt", save_network(network.cpu())),
                store(attempt, "curves.png", curves),
                store_json(attempt, "history.json", history(reports)),
            ],
        )
    )
