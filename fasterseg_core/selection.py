"""Branch selection (appendix B): the derived network of every pair of branches inside the supernet, on the hold-out.

Batch norms of each network are recalibrated first: the supernet's statistics are those of mixtures. All networks, and
at every search epoch the supernet's own heads, are scored in one pass over the images, which are decoded once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role, SearchConfig
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.batches import Batch, InMemory, evaluation_batches
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.splits import Split
from fasterseg_core.datasets.transforms import EvaluationTransform, resize, scaled_size
from fasterseg_core.derive import Derivation, derive, target
from fasterseg_core.evaluation import SegmentationScore, evaluate_each
from fasterseg_core.latency_control import is_within
from fasterseg_core.latency_table import LatencyTable, estimate
from fasterseg_core.relaxation import most_probable_widths
from fasterseg_core.search_space import BRANCH_PAIRS, Resolution
from fasterseg_core.subnetwork import recalibrate, subnetwork

RECALIBRATION_BATCHES = 8
IN_MEMORY_BYTES = 512 * 2**20  # images whose pixels take less are decoded once in a search

_Key = tuple[str, tuple[int, ...]]  # "derived" or "head", and its branches


@dataclass(frozen=True)
class Selection:
    """A pair of branches: its derivation, its accuracy on the hold-out, its estimated latency (appendix B)."""

    derivation: Derivation
    miou: float
    latency_ms: float


class ValidationImages:
    """The hold-out, and images of trainA for batch norms, whole and at the training's scale, on the device."""

    def __init__(
        self,
        data: SegmentationData,
        split: Split,
        config: SearchConfig,
        device: torch.device,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        height, width = scaled_size(config.resolution, config.image_scale)
        self.num_classes = len(data.classes)
        self._device, self._batch_size = device, 2 * config.batch_size
        self._transform = EvaluationTransform(Resolution(height=height, width=width))
        calibration = split.train_a[: RECALIBRATION_BATCHES * self._batch_size]
        indices = (*calibration, *split.holdout)
        if len(indices) * 4 * height * width <= in_memory_bytes:
            samples = tuple(resize(*data.sample(index), (height, width)) for index in indices)
            data, indices = InMemory(data.classes, data.colours, samples), tuple(range(len(indices)))
        self._data = data
        self._calibration, self._holdout = indices[: len(calibration)], indices[len(calibration) :]

    def calibration(self) -> Iterator[Tensor]:
        """Batches of images (B, 3, h, w) for the statistics of batch norms."""
        return (images for images, _ in self._batches(self._calibration))

    def holdout(self) -> Iterator[Batch]:
        """Batches of images (B, 3, h, w) and labels (B, h, w) that branches compete on."""
        return self._batches(self._holdout)

    def _batches(self, indices: Sequence[int]) -> Iterator[Batch]:
        for images, labels in evaluation_batches(self._data, indices, self._transform, batch_size=self._batch_size):
            yield images.to(self._device), labels.to(self._device)


def candidates(models: CoSearch, role: Role, table: LatencyTable, images: ValidationImages) -> list[Selection]:
    """Every pair of branches of one role."""
    networks = _DerivedNetworks(models, role, images)
    scores = evaluate_each(networks, images.holdout(), images.num_classes)
    return networks.selections(scores, table)


def candidates_and_heads(
    models: CoSearch, table: LatencyTable, images: ValidationImages
) -> tuple[list[Selection], dict[str, float]]:
    """Every pair of the student's branches; the mIoU of each head of its supernet at the most probable widths."""
    student = models.relaxations[Role.STUDENT]
    networks = _DerivedNetworks(models, Role.STUDENT, images)
    with torch.no_grad():
        probabilities, widths = student.probabilities(), most_probable_widths(student)

    def predict(batch: Tensor) -> dict[_Key, Tensor]:
        heads = models.supernet(batch, Role.STUDENT, probabilities, widths)
        return {**networks(batch), **{("head", rates): logits for rates, logits in heads.items()}}

    models.supernet.eval()
    scores = evaluate_each(predict, images.holdout(), images.num_classes)
    models.supernet.train()
    heads = {"+".join(map(str, rates)): score.miou for (kind, rates), score in scores.items() if kind == "head"}
    return networks.selections(scores, table), heads


def best(selections: Sequence[Selection], exponent: float, target_ms: float | None) -> Selection:
    """The best by eq. 5; with a latency target, of those within its tolerance, or the nearest where none is."""

    def rank(selection: Selection) -> tuple[float, float]:
        criterion = target(selection.miou, selection.latency_ms, exponent)
        if target_ms is None or is_within(selection.latency_ms, target_ms):
            return 0.0, criterion
        return -abs(selection.latency_ms - target_ms), criterion

    return max(selections, key=rank)


class _DerivedNetworks(nn.Module):
    """The derived network of each pair with the supernet's weights, batch norms recalibrated, ready to be scored."""

    def __init__(self, models: CoSearch, role: Role, images: ValidationImages) -> None:
        super().__init__()
        self.derivations = [derive(models.relaxations[role], pair) for pair in BRANCH_PAIRS]
        self.networks = nn.ModuleList(subnetwork(models.supernet, role, derivation) for derivation in self.derivations)
        recalibrate(self, images.calibration())
        self.eval()

    def forward(self, images: Tensor) -> dict[_Key, Tensor]:
        """Images (B, 3, h, w) -> the logits of each network."""
        return {("derived", pair): network(images) for pair, network in zip(BRANCH_PAIRS, self.networks, strict=True)}

    def selections(self, scores: Mapping[_Key, SegmentationScore], table: LatencyTable) -> list[Selection]:
        """The networks with their scores."""
        return [
            Selection(
                derivation,
                scores["derived", pair].miou,
                estimate(derivation.architecture, table).milliseconds,
            )
            for pair, derivation in zip(BRANCH_PAIRS, self.derivations, strict=True)
        ]
