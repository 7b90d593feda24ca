"""Class mIoU from a confusion matrix (sec. 4.1)."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.batches import Batch
from fasterseg_core.operators import resize

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class SegmentationScore:
    """Means over the classes that occur in truth or prediction; the class_iou of any other is None."""

    miou: float
    class_iou: tuple[float | None, ...]
    pixel_accuracy: float
    label_counts: tuple[int, ...]  # pixels of each class in the truth


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, num_classes), rows truth and columns prediction, over labelled pixels of (..., H, W) ids."""
    valid = labels != IGNORE_LABEL
    pairs = labels[valid].long() * num_classes + predictions[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def score(confusion: Tensor) -> SegmentationScore:
    """Intersection over union of each class, their mean, and the share of pixels that are right."""
    counts = confusion.double()
    hits = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - hits
    present = union > 0
    iou = hits / union.clamp_min(1)
    return SegmentationScore(
        miou=float(iou[present].mean()) if present.any() else 0.0,
        class_iou=tuple(float(v) if p else None for v, p in zip(iou, present, strict=True)),
        pixel_accuracy=float(hits.sum() / counts.sum().clamp_min(1)),
        label_counts=tuple(confusion.sum(dim=1).tolist()),
    )


def evaluate(network: nn.Module, batches: Iterable[Batch], num_classes: int) -> SegmentationScore:
    """The score of a network over (images (B, 3, H, W), labels (B, H, W)), in evaluation mode."""
    training = network.training
    network.eval()
    scores = evaluate_each(lambda images: {"network": network(images)}, batches, num_classes)
    network.train(training)
    return scores["network"]


def evaluate_each(
    predict: Callable[[Tensor], Mapping[K, Tensor]], batches: Iterable[Batch], num_classes: int
) -> dict[K, SegmentationScore]:
    """The score of each of several predictions, in one pass over (images (B, 3, H, W), labels (B, H, W)).

    Args:
        predict: images -> logits (B, num_classes, h, w) by key, which are resized to the labels.
    """
    confusions: dict[K, Tensor] = {}
    with torch.no_grad():
        for images, labels in batches:
            size = (labels.shape[1], labels.shape[2])
            for key, logits in predict(images).items():
                matrix = confusion_matrix(resize(logits, size).argmax(dim=1), labels, num_classes)
                confusions[key] = confusions[key] + matrix if key in confusions else matrix
    return {key: score(confusion.cpu()) for key, confusion in confusions.items()}


def best_constant(label_counts: Sequence[int]) -> SegmentationScore:
    """The best score that one class everywhere can reach, from the number of each class's pixels."""
    num_classes = len(label_counts)
    candidates = []
    for predicted in range(num_classes):
        confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        confusion[:, predicted] = torch.tensor(label_counts)
        candidates.append(score(confusion))
    return max(candidates, key=lambda candidate: candidate.miou)
