"""The models of a co-search and their updates: pretraining's one and the four of a search step (appendix F).

The widest pass of the weights goes through the teacher, whose width it is, so that no width is passed twice and both
stems and heads are trained. Architecture updates take no gradient of the weights: it would be thrown away.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from fasterseg_core.config import Arithmetic, OptimizerConfig, Role, SearchConfig
from fasterseg_core.cuda_graphs import GraphedSupernet
from fasterseg_core.datasets.batches import Batch
from fasterseg_core.latency import (
    balanced_weights,
    regularised_latency,
    relaxed_latency,
    sensitivities,
    space_latency,
)
from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.losses import downsampled_labels, ohem_cross_entropy, search_objective
from fasterseg_core.relaxation import Relaxation, Widths, fixed_widths, random_widths, sampled_widths
from fasterseg_core.reports import DivergedError
from fasterseg_core.supernet import Supernet


class CoSearchState(TypedDict):
    """The models, their optimisers and the generator of widths."""

    supernet: Mapping[str, Tensor]
    relaxations: dict[str, Mapping[str, Tensor]]
    weight_optimizer: dict[str, object]
    architecture_optimizers: dict[str, dict[str, object]]
    generator: Tensor


@dataclass(frozen=True, kw_only=True)
class SearchStepLosses:
    """The student's mean segmentation loss over widths, its objective (eq. 8), its relaxed latency (sec. 3.2)."""

    weight_loss: float
    architecture_loss: float
    latency_ms: float


class CoSearch:
    """A supernet shared by teacher and student, their relaxations, and the optimisers of all three.

    Raises:
        ValueError: CUDA graphs without CUDA.
        MissingLatencyError: the table lacks an operator of the space.
    """

    def __init__(self, config: SearchConfig, table: LatencyTable, device: torch.device) -> None:
        if config.cuda_graphs and device.type != "cuda":
            raise ValueError(f"cuda_graphs needs a CUDA device, this one is {device.type}: set it to false")
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.supernet = Supernet(config.space, table.fingerprint.num_classes).to(device)
        self._pass = GraphedSupernet(self.supernet) if config.cuda_graphs else self.supernet
        self.relaxations = {role: Relaxation(config.space, role).to(device) for role in Role}
        self._weights = list(self.supernet.parameters())  # thousands: finding them takes as long as a pass on a GPU
        self._scalars = [p for relaxation in self.relaxations.values() for p in relaxation.parameters()]
        student = self.relaxations[Role.STUDENT]
        self.latency = space_latency(config.space, student, table)
        self.granularity_weights = config.granularity_weights or balanced_weights(sensitivities(student, self.latency))
        self.weight_optimizer = torch.optim.SGD(
            self._weights,
            lr=config.optimizer.learning_rate,
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        for parameter in self._weights:  # before any activation: memory that stays leaves no holes
            self.weight_optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.architecture_optimizers = {
            role: torch.optim.Adam(
                relaxation.parameters(), lr=config.architecture_learning_rate, betas=config.architecture_betas
            )
            for role, relaxation in self.relaxations.items()
        }
        self.generator = torch.Generator().manual_seed(config.seed)

    def set_optimizer(self, config: OptimizerConfig, epoch: int) -> None:
        """Puts the weights' optimiser on its schedule at an epoch."""
        for group in self.weight_optimizer.param_groups:
            group["lr"] = config.learning_rate * config.decay**epoch
            group["momentum"], group["weight_decay"] = config.momentum, config.weight_decay

    def pretrain_step(self, batch: Batch, place: str) -> float:
        """Weights at the largest, two random and the smallest width; returns the mean loss of the passes.

        Raises:
            DivergedError: the loss or a gradient is not finite; the message begins with the place.
        """
        space, generator = self.config.space, self.generator
        drawn = [random_widths(space, space.student_ratio, generator) for _ in range(2)]
        passes = [(Role.TEACHER, self._widest()), *((Role.STUDENT, widths) for widths in (*drawn, self._smallest()))]
        return self._update_weights(batch, passes, self.config.pretrain_optimizer.gradient_clip, place)

    def search_step(
        self, weight_batch: Batch, architecture_batch: Batch, latency_weight: float, place: str
    ) -> SearchStepLosses:
        """The four updates: W(T), W(S) on trainA, then the teacher's and the student's architecture on trainB.

        Raises:
            DivergedError: a loss or a gradient is not finite; that update was not applied.
        """
        gradient_clip = self.config.optimizer.gradient_clip
        with torch.no_grad():
            sampled = self._sampled()  # without a gradient to gamma: this update is the weights'
        self._update_weights(weight_batch, [(Role.TEACHER, self._widest())], gradient_clip, place)
        student_passes = [(Role.STUDENT, sampled), (Role.STUDENT, self._smallest())]
        weight_loss = self._update_weights(weight_batch, student_passes, gradient_clip, place)
        self._update_architecture(Role.TEACHER, architecture_batch, self._widest(), 0.0, place)
        objective = self._update_architecture(Role.STUDENT, architecture_batch, self._sampled(), latency_weight, place)
        return SearchStepLosses(
            weight_loss=weight_loss, architecture_loss=objective, latency_ms=self.relaxed_latency_ms()
        )

    def relaxed_latency_ms(self) -> float:
        """The student's relaxed latency (sec. 3.2)."""
        with torch.no_grad():
            return float(relaxed_latency(self.relaxations[Role.STUDENT].probabilities(), self.latency))

    def state_dict(self) -> CoSearchState:
        """Everything that the next step depends on."""
        return {
            "supernet": self.supernet.state_dict(),
            "relaxations": {role.value: relaxation.state_dict() for role, relaxation in self.relaxations.items()},
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "architecture_optimizers": {
                role.value: optimizer.state_dict() for role, optimizer in self.architecture_optimizers.items()
            },
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: CoSearchState) -> None:
        """Continues from a state."""
        self.supernet.load_state_dict(state["supernet"])
        for role in Role:
            self.relaxations[role].load_state_dict(state["relaxations"][role.value])
            self.architecture_optimizers[role].load_state_dict(state["architecture_optimizers"][role.value])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.generator.set_state(state["generator"])

    def _update_weights(
        self, batch: Batch, passes: list[tuple[Role, Widths]], gradient_clip: float, place: str
    ) -> float:
        """One update from the gradients of several passes, each with its backward before the next."""
        with _frozen(self._scalars):
            losses = [self._add_gradients(batch, role, widths) for role, widths in passes]
        norm = torch.nn.utils.get_total_norm(p.grad for p in self._weights if p.grad is not None)
        total = float(torch.stack(losses).sum())  # only here a device is waited for
        _require_finite(total + float(norm), place, "weights")
        if float(norm) > gradient_clip:
            torch.nn.utils.clip_grads_with_norm_(self._weights, gradient_clip, norm)
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad(set_to_none=True)  # a gigabyte that the architecture's passes can use
        return total / len(passes)

    def _add_gradients(self, batch: Batch, role: Role, widths: Widths) -> Tensor:
        """Those of one pass; returns its loss. Nothing of the pass stays: a graph could not be captured beside it."""
        loss = self._segmentation_loss(batch, role, widths)
        torch.autograd.backward(loss)
        return loss.detach()

    def _update_architecture(
        self, role: Role, batch: Batch, widths: Widths, latency_weight: float, place: str
    ) -> float:
        """One update of alpha, beta and gamma; returns the objective (eq. 8). Only the student's latency counts."""
        optimizer = self.architecture_optimizers[role]
        optimizer.zero_grad(set_to_none=True)
        with _frozen(self._weights):
            objective = self._segmentation_loss(batch, role, widths)
            if role is Role.STUDENT:
                probabilities = self.relaxations[role].probabilities()
                latency_ms = regularised_latency(probabilities, self.latency, self.granularity_weights)
                objective = search_objective(objective, latency_ms, latency_weight)
            torch.autograd.backward(objective)
        gradients = [p.grad for p in self.relaxations[role].parameters() if p.grad is not None]
        value = float(objective.detach())
        _require_finite(value + sum(float(gradient.sum()) for gradient in gradients), place, f"{role}'s architecture")
        optimizer.step()
        return value

    def _segmentation_loss(self, batch: Batch, role: Role, widths: Widths) -> Tensor:
        """The sum over single branches and pairs, at 1/8 of the image."""
        images, labels = batch
        bf16 = self.config.arithmetic is Arithmetic.BF16
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits = self._pass(images, role, self.relaxations[role].probabilities(), widths)
        some = next(iter(logits.values()))
        small = downsampled_labels(labels, (some.shape[2], some.shape[3]))
        losses = [ohem_cross_entropy(prediction.float(), small, self.config.ohem) for prediction in logits.values()]
        return torch.stack(losses).sum()

    def _smallest(self) -> Widths:
        return fixed_widths(self.config.space, self.config.space.expansion_ratios[0], self.config.space.student_ratio)

    def _widest(self) -> Widths:
        """The teacher's, stem and head included."""
        return fixed_widths(self.config.space, self.config.space.teacher_ratio, self.config.space.teacher_ratio)

    def _sampled(self) -> Widths:
        return sampled_widths(self.relaxations[Role.STUDENT], self.config.temperature, self.generator)


def _require_finite(value: float, place: str, what: str) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"{place}: the loss or gradient of the {what} is not finite; lower the learning rate "
            "(pretrain_optimizer, optimizer, architecture_learning_rate)"
        )


@contextmanager
def _frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradient is taken of these parameters meanwhile."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
