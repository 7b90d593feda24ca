"""A derived network trained from scratch: the teacher, then the student with the teacher's distillation (sec. 3.3).

The learning rate falls exponentially, step by step, and ends at the same share of its start however long the run is:
the published 600 epochs of x .992 have the same rate at the beginning of each epoch. Auxiliary losses are taken at 1/8
of the image, as in the search: at its full size they would take as long as the convolutions.
"""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import TypedDict

import torch
from torch import Tensor

from fasterseg_core.ablations import trained_architecture
from fasterseg_core.architecture import Architecture
from fasterseg_core.config import RetrainConfig
from fasterseg_core.datasets.batches import Batch, batches, evaluation_batches
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.splits import random_split
from fasterseg_core.datasets.transforms import EvaluationTransform, TrainingTransform, scaled_size
from fasterseg_core.evaluation import evaluate
from fasterseg_core.losses import distillation, downsampled_labels, ohem_cross_entropy
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.reports import DivergedError, EpochReport, Report, StepReport


class RetrainState(TypedDict):
    """Everything that a retraining needs to go on at the next step as if it had not stopped."""

    epoch: int
    step: int
    loss_sum: float
    split: str
    network: Mapping[str, Tensor]
    optimizer: dict[str, object]
    best: Mapping[str, Tensor] | None
    best_miou: float
    best_epoch: int
    history: list[dict[str, object]]


def learning_rate(config: RetrainConfig, fraction: float) -> float:
    """The learning rate of the step before which a fraction of the run is done."""
    return config.optimizer.learning_rate * math.pow(config.annealed_to, fraction)


class Retrain:
    """A training run on one device; iterate over `run()`, then take `best_network` or `last_network`.

    Raises:
        ValueError: the teacher predicts other classes than the data has, a batch is larger than the data, or the
            architecture lacks the branch to keep.
    """

    def __init__(
        self,
        config: RetrainConfig,
        architecture: Architecture,
        data: SegmentationData,
        device: torch.device,
        teacher: SegmentationNetwork | None = None,
    ) -> None:
        if teacher is not None and teacher.num_classes != len(data.classes):
            raise ValueError(f"teacher: it predicts {teacher.num_classes} classes, the data has {len(data.classes)}")
        self.config, self.data, self.device = config, data, device
        self.split = random_split(
            len(data), holdout_share=config.holdout_share, max_holdout=config.holdout_images, seed=config.seed
        )
        if len(self.split.training) < config.batch_size:
            raise ValueError(f"batch_size {config.batch_size} is more than the {len(self.split.training)} images")
        self.steps_per_epoch = config.steps_per_epoch or len(self.split.training) // config.batch_size
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.network = SegmentationNetwork(trained_architecture(config, architecture), len(data.classes))
        self.network.to(device)
        self.teacher = None if teacher is None else teacher.to(device).eval().requires_grad_(False)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.optimizer.learning_rate,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        )
        self.epoch = 0  # finished epochs
        self.step = 0  # finished steps of the current epoch
        self.loss_sum = 0.0  # of the current epoch
        self.best: Mapping[str, Tensor] | None = None  # the weights that scored best on the hold-out
        self.best_miou = -1.0
        self.best_epoch = 0
        self.history: list[EpochReport] = []

    def run(self) -> Iterator[Report]:
        """Trains from wherever the state stands.

        Raises:
            DivergedError: a loss or gradient is not finite; that step was not applied.
        """
        while self.epoch < self.config.epochs:
            for batch in self._batches():
                loss = self._update(batch)
                self.step += 1
                self.loss_sum += loss
                yield self._step_report(loss)
            miou = self._evaluate() if self._is_evaluated() else None
            report = EpochReport(
                phase="retrain", epoch=self.epoch + 1, loss=self.loss_sum / self.steps_per_epoch, miou=miou
            )
            self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
            self.history.append(report)
            yield report

    def best_network(self) -> SegmentationNetwork:
        """The network with the weights that scored best on the hold-out, in evaluation mode."""
        assert self.best is not None, "the last epoch is always evaluated"
        return self._network_of(self.best)

    def last_network(self) -> SegmentationNetwork:
        """The network with the weights that it has now, in evaluation mode."""
        return self._network_of(self.network.state_dict())

    def state_dict(self) -> RetrainState:
        """The state between two steps."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "split": self.split.digest,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_miou": self.best_miou,
            "best_epoch": self.best_epoch,
            "history": [asdict(report) for report in self.history],
        }

    def load_state_dict(self, state: RetrainState) -> None:
        """Continues from a state; ValueError where the training images are not the ones it was made with."""
        self.split.require(state["split"])
        self.epoch, self.step, self.loss_sum = state["epoch"], state["step"], state["loss_sum"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_miou, self.best_epoch = state["best"], state["best_miou"], state["best_epoch"]
        self.history = [EpochReport(**report) for report in state["history"]]  # type: ignore[arg-type]

    def _update(self, batch: Batch) -> float:
        config, (images, labels) = self.config, batch
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self._fraction())
        self.network.train()
        logits, auxiliary = self.network.training_logits(images)
        loss = ohem_cross_entropy(logits, labels, config.ohem)
        for prediction in auxiliary:
            small = downsampled_labels(labels, (prediction.shape[2], prediction.shape[3]))
            loss = loss + config.auxiliary_weight * ohem_cross_entropy(prediction, small, config.ohem)
        if self.teacher is not None:
            with torch.no_grad():
                teacher_logits = self.teacher(images)
            loss = loss + config.distillation_weight * distillation(logits, teacher_logits, labels, config.distillation)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.optimizer.gradient_clip)
        if not math.isfinite(float(loss.detach()) + float(norm)):
            raise DivergedError(
                f"retrain epoch {self.epoch + 1}, step {self.step + 1}: the loss or gradient is not finite; "
                "lower the learning rate"
            )
        self.optimizer.step()
        return float(loss.detach())

    def _step_report(self, loss: float) -> StepReport:
        return StepReport(
            phase="retrain",
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            step=self.step,
            steps=self.steps_per_epoch,
            fraction=self._fraction(),
            loss=loss,
        )

    def _fraction(self) -> float:
        """The share of all steps that is done."""
        return (self.epoch + self.step / self.steps_per_epoch) / self.config.epochs

    def _is_evaluated(self) -> bool:
        finished = self.epoch + 1
        return finished % self.config.evaluate_every == 0 or finished == self.config.epochs

    def _evaluate(self) -> float:
        """The mIoU on the hold-out; keeps the weights where it is the best so far."""
        config = self.config
        transform = EvaluationTransform(config.resolution)
        held_out = evaluation_batches(
            self.data, self.split.holdout, transform, batch_size=config.batch_size, num_workers=config.num_workers
        )
        on_device = ((images.to(self.device), labels.to(self.device)) for images, labels in held_out)
        miou = evaluate(self.network, on_device, len(self.data.classes)).miou
        if miou > self.best_miou:
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
            self.best_miou, self.best_epoch = miou, self.epoch + 1
        return miou

    def _network_of(self, weights: Mapping[str, Tensor]) -> SegmentationNetwork:
        network = deepcopy(self.network)
        network.load_state_dict(weights)
        return network.eval()

    def _batches(self) -> Iterator[Batch]:
        config = self.config
        transform = TrainingTransform(
            base=scaled_size(config.resolution, 1.0), crop=config.crop, scales=config.scales, jitter=config.jitter
        )
        for images, labels in batches(
            self.data,
            self.split.training,
            transform,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=self.epoch,
            start_step=self.step,
            steps=self.steps_per_epoch,
            num_workers=config.num_workers,
        ):
            yield images.to(self.device), labels.to(self.device)
