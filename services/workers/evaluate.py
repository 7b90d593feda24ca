"""An evaluate job: mIoU on the validation set, beside an untrained network and the best constant prediction (sec. 4.1).

It is the only kind of job that reads a validation set.
"""

import math
from collections.abc import Iterator

import torch

from fasterseg_core.config import EvaluateConfig
from fasterseg_core.datasets.batches import Batch, evaluation_batches
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.transforms import EvaluationTransform, denormalise
from fasterseg_core.evaluation import best_constant, evaluate
from fasterseg_core.figures import prediction_rows
from fasterseg_core.network import SegmentationNetwork, load_network
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import AttemptSuccess
from services.workers.data import load_data
from services.workers.following import counted
from services.workers.job import Job, config_of
from services.workers.outputs import json_object, store

BATCH_SIZE = 4


def run(job: Job, attempt: AttemptClient) -> None:
    """Evaluates the network and what it has to beat."""
    config = config_of(job, EvaluateConfig)
    assert job.inputs.network is not None, "the control plane refuses an evaluation without a network"
    network = load_network(attempt.download(job.inputs.network)).to(job.device)
    data = load_data(job, config.dataset, "val", (config.resolution.height, config.resolution.width))
    if network.num_classes != len(data.classes):
        raise ValueError(
            f"dataset {config.dataset}: {len(data.classes)} classes, the network has {network.num_classes}"
        )

    def batches(phase: str, begin: float, end: float) -> Iterator[Batch]:
        transform = EvaluationTransform(config.resolution)
        found = evaluation_batches(data, range(len(data)), transform, batch_size=BATCH_SIZE)
        for images, labels in counted(found, math.ceil(len(data) / BATCH_SIZE), phase, begin, end, attempt):
            yield images.to(job.device), labels.to(job.device)

    score = evaluate(network, batches("evaluate", 0.0, 0.5), network.num_classes)
    untrained = evaluate(
        _untrained(network).to(job.device), batches("untrained network", 0.5, 1.0), network.num_classes
    )
    attempt.succeed(
        AttemptSuccess(
            result=json_object(
                {
                    "miou": score.miou,
                    "pixel_accuracy": score.pixel_accuracy,
                    "class_iou": dict(zip(data.classes, score.class_iou, strict=True)),
                    "untrained_miou": untrained.miou,
                    "constant_miou": best_constant(score.label_counts).miou,
                    "images": len(data),
                }
            ),
            artifacts=[store(attempt, "predictions.png", _pictures(network, data, config, job.device))],
        )
    )


def _untrained(network: SegmentationNetwork) -> SegmentationNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return SegmentationNetwork(network.architecture, network.num_classes)


def _pictures(
    network: SegmentationNetwork, data: SegmentationData, config: EvaluateConfig, device: torch.device
) -> bytes:
    """Image | truth | prediction of images spread over the whole set (Figure 7)."""
    count = min(config.pictures, len(data))
    chosen = [number * len(data) // count for number in range(count)]
    batches = evaluation_batches(data, chosen, EvaluationTransform(config.resolution), batch_size=count)
    images, labels = next(iter(batches))
    with torch.no_grad():
        predictions = network(images.to(device)).argmax(dim=1).cpu()
    return prediction_rows(
        denormalise(images), labels, [predictions], data.colours, ["image", "truth", "prediction"], data.classes
    )
