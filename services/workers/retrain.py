"""A retrain job: a derived network trained from scratch, the student distilled where a teacher is given."""

from typing import cast

from fasterseg_core.architecture import Architecture, ArchitectureDocument
from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.config import RetrainConfig
from fasterseg_core.datasets.transforms import scaled_size
from fasterseg_core.figures import training_curves
from fasterseg_core.network import load_network, save_network
from fasterseg_core.retrain import Retrain
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess
from services.workers.data import load_data
from services.workers.job import Job, config_of
from services.workers.outputs import history, json_object, store, store_json
from services.workers.training import train


def run(job: Job, attempt: AttemptClient) -> None:
    """Trains from the latest checkpoint on, or afresh."""
    config = config_of(job, RetrainConfig)
    assert job.inputs.architecture is not None, "the control plane refuses a retraining without an architecture"
    document = cast(ArchitectureDocument, attempt.architecture(job.inputs.architecture))
    data = load_data(job, config.dataset, "train", scaled_size(config.resolution, max(config.scales)))
    teacher = None if job.inputs.teacher is None else load_network(attempt.download(job.inputs.teacher))
    training = Retrain(config, Architecture.from_document(document), data, job.device, teacher)
    watched = train(training, CheckpointKind.RETRAINING, job, attempt)

    best, newest = training.best_network(), training.last_network()
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
                    "best_miou": training.best_miou,
                    "best_epoch": training.best_epoch,
                    "last_miou": reports[-1].miou,
                    "scored_on": f"hold-out: {len(training.split.holdout)} of {len(data)} training images",
                    "split": training.split.digest,
                    "parameters": best.num_parameters(),
                    "distilled": teacher is not None,
                }
            ),
            artifacts=[
                store(attempt, "network.safetensors", save_network(best.cpu())),
                store(attempt, "network-last.safetensors", save_network(newest.cpu())),
                store(attempt, "curves.png", curves),
                watched,
                store_json(attempt, "history.json", history(reports)),
            ],
            architectures={config.role.value: json_object(best.architecture.to_document())},
        )
    )
