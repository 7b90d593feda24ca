"""A whole co-search: pretraining and search epochs, their reports, and what they act on (sec. 3.3, appendices B, F)."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TypedDict

import torch

from fasterseg_core.collapse import signs_of_collapse, warning
from fasterseg_core.config import CollapsePolicy, Role, SearchConfig
from fasterseg_core.cosearch import CoSearch, CoSearchState, SearchStepLosses
from fasterseg_core.datasets.batches import Batch, batches
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.splits import random_split
from fasterseg_core.datasets.transforms import TrainingTransform, scaled_size
from fasterseg_core.latency_control import LatencyControl
from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.reports import CollapsedError, EpochReport, Report, StepReport
from fasterseg_core.selection import Selection, ValidationImages, best, candidates, candidates_and_heads


class SearchState(TypedDict):
    """Everything that a search needs to go on at the next step as if it had not stopped."""

    epoch: int
    step: int
    sums: list[float]
    latency_weight: float
    split: str
    models: CoSearchState
    history: list[dict[str, object]]


class Search:
    """A co-search on one device; iterate over `run()`, then `select` each role.

    Raises:
        ValueError: the table, the data and the configuration do not fit each other, or the target is out of reach.
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
        self.models = CoSearch(config, table, device)
        self.control = _control(config, self.models, table)
        self.images = ValidationImages(data, self.split, config, device)
        self.epoch = 0  # finished epochs, pretraining included
        self.step = 0  # finished steps of the current epoch
        self.sums = [0.0, 0.0, 0.0]  # of the current epoch's weight losses, architecture losses and lambdas
        self.latency_weight = config.latency_weight if self.control is None else 0.0  # of the optimiser's steps
        self.history: list[EpochReport] = []

    def run(self) -> Iterator[Report]:
        """Pretrains, then searches, from wherever the state stands.

        Raises:
            DivergedError: a loss or gradient is not finite; that step was not applied.
            CollapsedError: the student became trivial, and the policy is to stop.
        """
        while self.epoch < self.config.pretrain_epochs:
            yield from self._pretrain_epoch()
        while self.epoch < self.config.pretrain_epochs + self.config.epochs:
            self._stop_if_collapsed()
            yield from self._search_epoch()
        self._stop_if_collapsed()

    def select(self, role: Role) -> Selection:
        """The best pair of branches by eq. 5, each evaluated with the supernet's weights on the hold-out."""
        return self._best(role, candidates(self.models, role, self.table, self.images))

    def state_dict(self) -> SearchState:
        """The state between two steps."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": list(self.sums),
            "latency_weight": self.latency_weight,
            "split": self.split.digest,
            "models": self.models.state_dict(),
            "history": [asdict(report) for report in self.history],
        }

    def load_state_dict(self, state: SearchState) -> None:
        """Continues from a state; ValueError where the training images are not the ones it was made with."""
        self.split.require(state["split"])
        self.epoch, self.step, self.sums = state["epoch"], state["step"], list(state["sums"])
        self.latency_weight = state["latency_weight"]
        self.models.load_state_dict(state["models"])
        self.history = [EpochReport(**report) for report in state["history"]]  # type: ignore[arg-type]

    # ---- epochs ----

    def _pretrain_epoch(self) -> Iterator[Report]:
        self.models.set_optimizer(self.config.pretrain_optimizer, self.epoch)
        for batch in self._batches(self.split.train_a, self.config.seed):
            loss = self.models.pretrain_step(batch, self._place("pretrain", self.epoch + 1))
            yield self._stepped("pretrain", self.epoch + 1, self.config.pretrain_epochs, [loss, 0.0, 0.0], None)
        yield self._finished(EpochReport(phase="pretrain", epoch=self.epoch + 1, loss=self._mean(0)))

    def _search_epoch(self) -> Iterator[Report]:
        epoch = self.epoch - self.config.pretrain_epochs
        self.models.set_optimizer(self.config.optimizer, epoch)
        weights = self._batches(self.split.train_a, self.config.seed)
        architectures = self._batches(self.split.train_b, self.config.seed + 1)
        for weight_batch, architecture_batch in zip(weights, architectures, strict=True):
            losses, latency_weight = self._search_step(weight_batch, architecture_batch, epoch + 1)
            amounts = [losses.weight_loss, losses.architecture_loss, latency_weight]
            yield self._stepped("search", epoch + 1, self.config.epochs, amounts, losses.latency_ms)
        yield self._finished(self._acted_on(self._searched(epoch + 1)))

    def _search_step(
        self, weight_batch: Batch, architecture_batch: Batch, epoch: int
    ) -> tuple[SearchStepLosses, float]:
        """The four updates, then the move that holds the latency target, if there is one; and the lambda of both."""
        place = self._place("search", epoch)
        losses = self.models.search_step(weight_batch, architecture_batch, self.latency_weight, place)
        if self.control is None:
            return losses, self.latency_weight
        multiplier = self.control.hold(self.models.relaxations[Role.STUDENT])
        return replace(losses, latency_ms=self.models.relaxed_latency_ms()), multiplier

    def _searched(self, epoch: int) -> EpochReport:
        """The report of a search epoch: the derived student, the supernet's heads and scalars, signs of a collapse."""
        student = self.models.relaxations[Role.STUDENT]
        derived, heads = candidates_and_heads(self.models, self.table, self.images)
        selection = self._best(Role.STUDENT, derived)
        before = [(e.latency_ms, e.miou) for e in self.history if e.latency_ms is not None and e.miou is not None]
        latencies, mious = zip(*before, (selection.latency_ms, selection.miou), strict=True)
        signs = signs_of_collapse(student, latencies, mious)
        with torch.no_grad():
            rows = {name: torch.softmax(logits, dim=1) for name, logits in student.named_parameters()}
        return EpochReport(
            phase="search",
            epoch=epoch,
            loss=self._mean(0),
            architecture_loss=self._mean(1),
            relaxed_latency_ms=self.models.relaxed_latency_ms(),
            latency_ms=selection.latency_ms,
            miou=selection.miou,
            latency_weight=self.latency_weight if self.control is None else self._mean(2),
            head_mious=heads,
            warning=warning(signs, len(student.ratios)),
            relaxation={name: values.tolist() for name, values in rows.items()},
            **asdict(signs),
        )

    def _best(self, role: Role, selections: list[Selection]) -> Selection:
        """Of one role's; a latency target is the student's alone."""
        target_ms = self.config.target_latency_ms if role is Role.STUDENT else None
        return best(selections, self.config.target_exponent, target_ms)

    # ---- collapse (sec. 3.2) ----

    def _acted_on(self, report: EpochReport) -> EpochReport:
        """The report, its warning complete; lambda is halved where that is the policy."""
        if report.warning is None or self.config.collapse_policy is not CollapsePolicy.HALVE_LAMBDA:
            return report
        self.latency_weight /= 2
        return replace(report, warning=f"{report.warning}. Lambda is {self.latency_weight:g} from the next epoch on")

    def _stop_if_collapsed(self) -> None:
        last = self.history[-1] if self.history else None
        if last is not None and last.warning is not None and self.config.collapse_policy is CollapsePolicy.STOP:
            raise CollapsedError(f"{last.phase} epoch {last.epoch}: {last.warning}")

    # ---- parts ----

    def _place(self, phase: str, epoch: int) -> str:
        return f"{phase} epoch {epoch}, step {self.step + 1}"

    def _stepped(
        self, phase: str, epoch: int, epochs: int, amounts: list[float], latency_ms: float | None
    ) -> StepReport:
        """The report of a step, whose losses and lambda are added to the epoch's."""
        self.step += 1
        self.sums = [total + amount for total, amount in zip(self.sums, amounts, strict=True)]
        epochs_in_all = self.config.pretrain_epochs + self.config.epochs
        return StepReport(
            phase=phase,
            epoch=epoch,
            epochs=epochs,
            step=self.step,
            steps=self.steps_per_epoch,
            fraction=(self.epoch + self.step / self.steps_per_epoch) / epochs_in_all,
            loss=amounts[0],
            latency_ms=latency_ms,
        )

    def _finished(self, report: EpochReport) -> EpochReport:
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0, 0.0, 0.0]
        self.history.append(report)
        return report

    def _mean(self, index: int) -> float:
        return self.sums[index] / self.steps_per_epoch

    def _batches(self, indices: tuple[int, ...], seed: int) -> Iterator[Batch]:
        config = self.config
        transform = TrainingTransform(
            base=scaled_size(config.resolution, config.image_scale), crop=config.crop, jitter=config.jitter
        )
        for images, labels in batches(
            self.data,
            indices,
            transform,
            batch_size=config.batch_size,
            seed=seed,
            epoch=self.epoch,
            start_step=self.step,
            steps=self.steps_per_epoch,
            num_workers=config.num_workers,
        ):
            yield images.to(self.device), labels.to(self.device)


def _control(config: SearchConfig, models: CoSearch, table: LatencyTable) -> LatencyControl | None:
    """What holds the student at its target, if it has one; ValueError where that is out of reach."""
    if config.target_latency_ms is None:
        return None
    control = LatencyControl(models.latency, models.granularity_weights, table, config.target_latency_ms)
    control.require_reachable(models.relaxations[Role.STUDENT])
    return control
