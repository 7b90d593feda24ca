"""Pretraining of the supernet and alternating co-search of teacher and student (sec. 3.3, appendix F).

Pretraining's widest pass goes through the teacher's stem and head, so that both ends are trained. Architecture updates
take no gradient of the weights: it would be thrown away.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from fasterseg_core.config import OptimizerConfig, Role, SearchConfig
from fasterseg_core.datasets.batches import Batch, batches, evaluation_batches
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.splits import random_split
from fasterseg_core.datasets.transforms import EvaluationTransform, TrainingTransform, scaled_size
from fasterseg_core.derive import Derivation, derive, target
from fasterseg_core.evaluation import evaluate
from fasterseg_core.latency import (
    balanced_weights,
    regularised_latency,
    relaxed_latency,
    sensitivities,
    space_latency,
)
from fasterseg_core.latency_table import LatencyTable, estimate
from fasterseg_core.losses import downsampled_labels, ohem_cross_entropy, search_objective
from fasterseg_core.relaxation import Relaxation, Widths, fixed_widths, random_widths, sampled_widths
from fasterseg_core.reports import DivergedError, EpochReport, Report, StepReport
from fasterseg_core.search_space import BRANCH_PAIRS, Resolution
from fasterseg_core.subnetwork import recalibrate, subnetwork
from fasterseg_core.supernet import Supernet

RECALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Selection:
    """A pair of branches: its derivation, its accuracy on the hold-out, its estimated latency (appendix B)."""

    derivation: Derivation
    miou: float
    latency_ms: float


class SearchState(TypedDict):
    """Everything that a search needs to go on at the next step as if it had not stopped."""

    epoch: int
    step: int
    sums: list[float]
    split: str
    supernet: Mapping[str, Tensor]
    relaxations: dict[str, Mapping[str, Tensor]]
    weight_optimizer: dict[str, object]
    architecture_optimizers: dict[str, dict[str, object]]
    generator: Tensor
    history: list[dict[str, object]]


class Search:
    """A co-search on one device; iterate over `run()`, then `select` each role.

    Raises:
        ValueError: the table, the data and the configuration do not fit each other.
        MissingLatencyError: the table lacks an operator of the space.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable, data: SegmentationData, device: torch.device) -> None:
        fingerprint = table.fingerprint
        if fingerprint.resolution != config.resolution:
            raise ValueError(f"resolution {config.resolution} is not the latency table's, {fingerprint.resolution}")
        if fingerprint.num_classes != len(data.classes):
            raise ValueError(
                f"dataset: {len(data.classes)} classes, but the latency table has {fingerprint.num_classes}"
            )
        self.config, self.table, self.data, self.device = config, table, data, device
        self.split = random_split(
            len(data), holdout_share=config.holdout_share, max_holdout=config.holdout_images, seed=config.seed
        )
        if len(self.split.train_b) < config.batch_size:  # the smaller half, first read after the whole pretraining
            raise ValueError(
                f"batch_size {config.batch_size} is more than the {len(self.split.train_b)} images of trainB"
            )
        self.steps_per_epoch = config.steps_per_epoch or len(self.split.train_a) // config.batch_size
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.supernet = Supernet(config.space, len(data.classes)).to(device)
        self.relaxations = {role: Relaxation(config.space, role).to(device) for role in Role}
        student = self.relaxations[Role.STUDENT]
        self.latency = space_latency(config.space, student, table)
        self.granularity_weights = config.granularity_weights or balanced_weights(sensitivities(student, self.latency))
        self.weight_optimizer = torch.optim.SGD(
            self.supernet.parameters(),
            lr=config.optimizer.learning_rate,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
        )
        self.architecture_optimizers = {
            role: torch.optim.Adam(
                relaxation.parameters(), lr=config.architecture_learning_rate, betas=config.architecture_betas
            )
            for role, relaxation in self.relaxations.items()
        }
        self.generator = torch.Generator().manual_seed(config.seed)
        self.epoch = 0  # finished epochs, pretraining included
        self.step = 0  # finished steps of the current epoch
        self.sums = [0.0, 0.0]  # of the current epoch's weight and architecture losses
        self.history: list[EpochReport] = []

    def run(self) -> Iterator[Report]:
        """Pretrains, then searches, from wherever the state stands.

        Raises:
            DivergedError: a loss or gradient is not finite; that step was not applied.
        """
        while self.epoch < self.config.pretrain_epochs:
            yield from self._pretrain_epoch()
        while self.epoch < self.config.pretrain_epochs + self.config.epochs:
            yield from self._search_epoch()

    def select(self, role: Role) -> Selection:
        """The best pair of branches by eq. 5, each evaluated with the supernet's weights on the hold-out."""
        candidates = [self._evaluated(role, pair) for pair in BRANCH_PAIRS]
        goal, exponent = self.config.target_latency_ms, self.config.target_exponent
        return max(candidates, key=lambda candidate: target(candidate.miou, candidate.latency_ms, goal, exponent))

    def state_dict(self) -> SearchState:
        """The state between two steps."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": list(self.sums),
            "split": self.split.digest,
            "supernet": self.supernet.state_dict(),
            "relaxations": {role.value: relaxation.state_dict() for role, relaxation in self.relaxations.items()},
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "architecture_optimizers": {
                role.value: optimizer.state_dict() for role, optimizer in self.architecture_optimizers.items()
            },
            "generator": self.generator.get_state(),
            "history": [asdict(report) for report in self.history],
        }

    def load_state_dict(self, state: SearchState) -> None:
        """Continues from a state; ValueError where the training images are not the ones it was made with."""
        if state["split"] != self.split.digest:
            raise ValueError("the checkpoint was made with another split of the training images: has the data changed?")
        self.epoch, self.step, self.sums = state["epoch"], state["step"], list(state["sums"])
        self.supernet.load_state_dict(state["supernet"])
        for role in Role:
            self.relaxations[role].load_state_dict(state["relaxations"][role.value])
            self.architecture_optimizers[role].load_state_dict(state["architecture_optimizers"][role.value])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.generator.set_state(state["generator"])
        self.history = [EpochReport(**report) for report in state["history"]]  # type: ignore[arg-type]

    # ---- epochs ----

    def _pretrain_epoch(self) -> Iterator[Report]:
        self._set_optimizer(self.config.pretrain_optimizer, self.epoch)
        for batch in self._batches(self.split.train_a, self.config.seed):
            loss = self._pretrain_step(batch)
            yield self._stepped("pretrain", self.epoch + 1, self.config.pretrain_epochs, loss, 0.0, None)
        yield self._finished(EpochReport(phase="pretrain", epoch=self.epoch + 1, loss=self._mean(0)))

    def _search_epoch(self) -> Iterator[Report]:
        epoch = self.epoch - self.config.pretrain_epochs
        self._set_optimizer(self.config.optimizer, epoch)
        weights = self._batches(self.split.train_a, self.config.seed)
        architectures = self._batches(self.split.train_b, self.config.seed + 1)
        for weight_batch, architecture_batch in zip(weights, architectures, strict=True):
            loss, architecture_loss, latency_ms = self._search_step(weight_batch, architecture_batch)
            yield self._stepped("search", epoch + 1, self.config.epochs, loss, architecture_loss, latency_ms)
        student = self.select(Role.STUDENT)
        yield self._finished(
            EpochReport(
                phase="search",
                epoch=epoch + 1,
                loss=self._mean(0),
                architecture_loss=self._mean(1),
                relaxed_latency_ms=float(self._relaxed_latency().detach()),
                latency_ms=student.latency_ms,
                miou=student.miou,
            )
        )

    def _stepped(
        self, phase: str, epoch: int, epochs: int, loss: float, architecture_loss: float, latency_ms: float | None
    ) -> StepReport:
        self.step += 1
        self.sums = [self.sums[0] + loss, self.sums[1] + architecture_loss]
        epochs_in_all = self.config.pretrain_epochs + self.config.epochs
        return StepReport(
            phase=phase,
            epoch=epoch,
            epochs=epochs,
            step=self.step,
            steps=self.steps_per_epoch,
            fraction=(self.epoch + self.step / self.steps_per_epoch) / epochs_in_all,
            loss=loss,
            latency_ms=latency_ms,
        )

    def _finished(self, report: EpochReport) -> EpochReport:
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0]
        self.history.append(report)
        return report

    def _mean(self, index: int) -> float:
        return self.sums[index] / self.steps_per_epoch

    # ---- steps (appendix F) ----

    def _pretrain_step(self, batch: Batch) -> float:
        """Weights on trainA at the smallest, the largest and two random widths; returns the mean loss of the passes."""
        student = self.config.space.student_ratio
        return self._update_weights(
            batch,
            [
                (Role.TEACHER, self._widest(Role.TEACHER)),
                (Role.STUDENT, self._smallest()),
                *((Role.STUDENT, random_widths(self.config.space, student, self.generator)) for _ in range(2)),
            ],
            self.config.pretrain_optimizer.gradient_clip,
        )

    def _search_step(self, weight_batch: Batch, architecture_batch: Batch) -> tuple[float, float, float]:
        """The four updates; returns the student's weight loss, its objective and its relaxed latency in ms."""
        gradient_clip = self.config.optimizer.gradient_clip
        with torch.no_grad():
            sampled = self._sampled()  # without a gradient to gamma: this update is the weights'
        self._update_weights(weight_batch, [(Role.TEACHER, self._widest(Role.TEACHER))], gradient_clip)
        student_loss = self._update_weights(
            weight_batch,
            [
                (Role.STUDENT, self._widest(Role.STUDENT)),
                (Role.STUDENT, self._smallest()),
                (Role.STUDENT, sampled),
            ],
            gradient_clip,
        )
        self._update_architecture(Role.TEACHER, architecture_batch, self._widest(Role.TEACHER))
        objective = self._update_architecture(Role.STUDENT, architecture_batch, self._sampled())
        return student_loss, objective, float(self._relaxed_latency().detach())

    def _update_weights(self, batch: Batch, passes: list[tuple[Role, Widths]], gradient_clip: float) -> float:
        self.weight_optimizer.zero_grad(set_to_none=True)
        total = 0.0
        with _frozen(*self.relaxations.values()):
            for role, widths in passes:
                loss = self._segmentation_loss(batch, role, widths)
                torch.autograd.backward(loss)
                total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.supernet.parameters(), gradient_clip)
        self._check_finite(total + float(norm), "weights")
        self.weight_optimizer.step()
        return total / len(passes)

    def _update_architecture(self, role: Role, batch: Batch, widths: Widths) -> float:
        optimizer = self.architecture_optimizers[role]
        optimizer.zero_grad(set_to_none=True)
        with _frozen(self.supernet):
            objective = self._segmentation_loss(batch, role, widths)
            if role is Role.STUDENT:
                probabilities = self.relaxations[role].probabilities()
                latency_ms = regularised_latency(probabilities, self.latency, self.granularity_weights)
                objective = search_objective(objective, latency_ms, self.config.latency_weight)
            torch.autograd.backward(objective)
        gradients = [p.grad for p in self.relaxations[role].parameters() if p.grad is not None]
        self._check_finite(float(objective.detach()) + sum(float(g.sum()) for g in gradients), f"{role} architecture")
        optimizer.step()
        return float(objective.detach())

    def _segmentation_loss(self, batch: Batch, role: Role, widths: Widths) -> Tensor:
        """The sum over single branches and pairs, at 1/8 of the image."""
        images, labels = batch
        logits = self.supernet(images, role, self.relaxations[role].probabilities(), widths)
        some = next(iter(logits.values()))
        small = downsampled_labels(labels, (some.shape[2], some.shape[3]))
        losses = [ohem_cross_entropy(prediction, small, self.config.ohem) for prediction in logits.values()]
        return torch.stack(losses).sum()

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            pretraining = self.epoch < self.config.pretrain_epochs
            epoch = self.epoch + 1 if pretraining else self.epoch + 1 - self.config.pretrain_epochs
            raise DivergedError(
                f"{'pretrain' if pretraining else 'search'} epoch {epoch}, step {self.step + 1}: the loss or gradient "
                f"of the {what} is not finite; lower the learning rate"
            )

    # ---- parts ----

    def _smallest(self) -> Widths:
        return fixed_widths(self.config.space, self.config.space.expansion_ratios[0], self.config.space.student_ratio)

    def _widest(self, role: Role) -> Widths:
        return fixed_widths(self.config.space, self.config.space.teacher_ratio, self.relaxations[role].end_ratio)

    def _sampled(self) -> Widths:
        return sampled_widths(self.relaxations[Role.STUDENT], self.config.temperature, self.generator)

    def _relaxed_latency(self) -> Tensor:
        return relaxed_latency(self.relaxations[Role.STUDENT].probabilities(), self.latency)

    def _set_optimizer(self, config: OptimizerConfig, epoch: int) -> None:
        for group in self.weight_optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay**epoch
            group["momentum"], group["weight_decay"] = config.momentum, config.weight_decay

    def _batches(self, indices: tuple[int, ...], seed: int) -> Iterator[Batch]:
        config = self.config
        transform = TrainingTransform(base=scaled_size(config.resolution, config.image_scale), crop=config.crop)
        for images, labels in batches(
            self.data,
            indices,
            transform,
            batch_size=config.batch_size,
            seed=seed,
            epoch=self.epoch,
            start_step=self.step,
            steps=self.steps_per_epoch,
        ):
            yield images.to(self.device), labels.to(self.device)

    def _evaluated(self, role: Role, pair: tuple[int, int]) -> Selection:
        derivation = derive(self.relaxations[role], pair)
        network = subnetwork(self.supernet, role, derivation)
        images = [images.to(self.device) for images, _ in self._evaluation(self.split.train_a, RECALIBRATION_BATCHES)]
        recalibrate(network, images)
        score = evaluate(network, self._evaluation(self.split.holdout), len(self.data.classes))
        return Selection(derivation, score.miou, estimate(derivation.architecture, self.table).milliseconds)

    def _evaluation(self, indices: tuple[int, ...], num_batches: int | None = None) -> Iterator[Batch]:
        height, width = scaled_size(self.config.resolution, self.config.image_scale)
        transform = EvaluationTransform(Resolution(height=height, width=width))
        batch_size = 2 * self.config.batch_size
        if num_batches is not None:
            indices = indices[: num_batches * batch_size]
        for images, labels in evaluation_batches(self.data, indices, transform, batch_size=batch_size):
            yield images.to(self.device), labels.to(self.device)


@contextmanager
def _frozen(*modules: nn.Module) -> Iterator[None]:
    """No gradient is taken of these modules' parameters meanwhile."""
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)
