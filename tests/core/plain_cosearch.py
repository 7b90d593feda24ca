"""The updates of a co-search written out plainly, to compare the fast ones with, in value and (benchmarks) in time.

Eqs. 1-2 operator by operator on slices of named weights, every path enumerated for the head's finer maps, one loss over
all passes of an update, gradients of everything. Batch norms' running statistics are left alone: no update reads them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fasterseg_core.config import Role
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.batches import Batch
from fasterseg_core.latency import relaxed_latency
from fasterseg_core.losses import downsampled_labels, ohem_cross_entropy
from fasterseg_core.relaxation import (
    Probabilities,
    Relaxation,
    Widths,
    fixed_widths,
    random_widths,
    sampled_widths,
)
from fasterseg_core.search_space import SearchSpace
from fasterseg_core.supernet import Supernet
from tests.core.naive import path_probability


def pretrain_step(models: CoSearch, batch: Batch) -> None:
    """Weights at the largest, two random and the smallest width."""
    space, generator = models.config.space, models.generator
    passes = [
        (Role.TEACHER, fixed_widths(space, space.teacher_ratio, space.teacher_ratio)),
        *((Role.STUDENT, random_widths(space, space.student_ratio, generator)) for _ in range(2)),
        (Role.STUDENT, fixed_widths(space, space.expansion_ratios[0], space.student_ratio)),
    ]
    update_weights(models, batch, passes, models.config.pretrain_optimizer.gradient_clip)


def search_step(models: CoSearch, weight_batch: Batch, architecture_batch: Batch, latency_weight: float) -> None:
    """The four updates of appendix F."""
    space, student = models.config.space, models.relaxations[Role.STUDENT]
    gradient_clip = models.config.optimizer.gradient_clip
    widest = fixed_widths(space, space.teacher_ratio, space.teacher_ratio)
    smallest = fixed_widths(space, space.expansion_ratios[0], space.student_ratio)
    sampled = sampled_widths(student, models.config.temperature, models.generator)
    update_weights(models, weight_batch, [(Role.TEACHER, widest)], gradient_clip)
    update_weights(models, weight_batch, [(Role.STUDENT, sampled), (Role.STUDENT, smallest)], gradient_clip)
    update_architecture(models, Role.TEACHER, architecture_batch, widest, 0.0)
    sampled = sampled_widths(student, models.config.temperature, models.generator)
    update_architecture(models, Role.STUDENT, architecture_batch, sampled, latency_weight)


def published_search_step(
    models: CoSearch, weight_batch: Batch, architecture_batch: Batch, latency_weight: float
) -> None:
    """What the published code computes in a step, for its cost: four passes for the architecture, four for the weights.

    Four make one graph with all gradients, and every operator runs on each input of its cell.
    """
    space, student = models.config.space, models.relaxations[Role.STUDENT]
    passes = [
        (Role.TEACHER, fixed_widths(space, space.teacher_ratio, space.teacher_ratio)),
        (Role.STUDENT, sampled_widths(student, models.config.temperature, models.generator)),
        (Role.STUDENT, fixed_widths(space, space.teacher_ratio, space.student_ratio)),
        (Role.STUDENT, fixed_widths(space, space.expansion_ratios[0], space.student_ratio)),
    ]

    def backward(batch: Batch) -> None:
        losses = [segmentation_loss(models, batch, role, widths, inputs_apart) for role, widths in passes]
        torch.autograd.backward(torch.stack(losses).sum() + latency_weight * latency_term(models))

    clear(models)
    backward(architecture_batch)
    for optimizer in models.architecture_optimizers.values():
        optimizer.step()
    clear(models)
    passes[1] = (Role.STUDENT, sampled_widths(student, models.config.temperature, models.generator))
    backward(weight_batch)
    torch.nn.utils.clip_grad_norm_(models.supernet.parameters(), models.config.optimizer.gradient_clip)
    models.weight_optimizer.step()


def update_weights(models: CoSearch, batch: Batch, passes: list[tuple[Role, Widths]], gradient_clip: float) -> None:
    """One graph over all passes; the gradients of the searched scalars are computed too, and thrown away."""
    clear(models)
    torch.stack([segmentation_loss(models, batch, role, widths) for role, widths in passes]).sum().backward()
    torch.nn.utils.clip_grad_norm_(models.supernet.parameters(), gradient_clip)
    models.weight_optimizer.step()


def update_architecture(models: CoSearch, role: Role, batch: Batch, widths: Widths, latency_weight: float) -> None:
    """The gradients of the weights are computed too, and thrown away."""
    clear(models)
    loss = segmentation_loss(models, batch, role, widths)
    if role is Role.STUDENT:
        loss = loss + latency_weight * latency_term(models)
    loss.backward()
    models.architecture_optimizers[role].step()


def clear(models: CoSearch) -> None:
    for module in (models.supernet, *models.relaxations.values()):
        module.zero_grad(set_to_none=True)


def latency_term(models: CoSearch) -> Tensor:
    """Eq. 3: three evaluations, each with the scalars of one granularity alone left to learn."""
    p = models.relaxations[Role.STUDENT].probabilities()
    total = torch.zeros(())
    for weight, learned in zip(models.granularity_weights, ("alpha", "beta", "gamma"), strict=True):
        view = Probabilities(
            *(
                rows if name == learned else {rate: row.detach() for rate, row in rows.items()}
                for name, rows in (("alpha", p.alpha), ("beta", p.beta), ("gamma", p.gamma))
            )
        )
        total = total + weight * relaxed_latency(view, models.latency)
    return total


def segmentation_loss(
    models: CoSearch, batch: Batch, role: Role, widths: Widths, inputs: "CellInputs | None" = None
) -> Tensor:
    images, labels = batch
    total = torch.zeros(())
    logits_of = plain_logits(models.supernet, models.relaxations[role], images, widths, inputs or inputs_mixed)
    for logits in logits_of.values():
        small = downsampled_labels(labels, (logits.shape[2], logits.shape[3]))
        total = total + ohem_cross_entropy(logits, small, models.config.ohem)
    return total


Inputs = list[tuple[Tensor | float, Tensor]]  # of a cell: weight and map
CellInputs = Callable[[Inputs], Inputs]


def inputs_mixed(inputs: Inputs) -> Inputs:
    """Eq. 1: a cell reads one map, the weighted sum."""
    return [(1.0, weighted_sum(inputs))]


def inputs_apart(inputs: Inputs) -> Inputs:
    """The published code: a cell reads each map, and what it makes of them is mixed."""
    return inputs


def plain_logits(
    supernet: Supernet, relaxation: Relaxation, images: Tensor, widths: Widths, cell_inputs: CellInputs = inputs_mixed
) -> dict[tuple[int, ...], Tensor]:
    """The logits of single branches and pairs, as `Supernet.forward` gives them in training."""
    space, ends, p = supernet.space, supernet.end_modules(relaxation.role), relaxation.probabilities()
    weights = dict(supernet.named_parameters())
    written: dict[tuple[int, int, int], Tensor] = {}  # rate, layer, stride -> what a cell writes
    read: dict[tuple[int, int], Tensor] = {}
    stem = ends.stem(images)
    for layer in range(space.num_layers):
        for rate in space.rates_at(layer):
            before = predecessors(space, p, written, rate, layer) if layer else [(1.0, stem)]
            read[rate, layer] = weighted_sum(before)
            alpha = p.alpha[rate][layer - space.first_layer(rate)]
            for stride in space.strides(rate, layer):
                side = "keep" if stride == 1 else "down"
                width = widths.into(rate * stride, layer + 1)
                index = space.expansion_ratios.index(width.ratio)
                name = f"cells.{rate}_{layer}.{side}.candidates"
                c_out = width.ratio * rate * stride
                out = weighted_sum(
                    [
                        (beta * alpha[k], operator(weights, f"{name}.{k}", k, x, c_out, index, stride))
                        for beta, x in cell_inputs(before)
                        for k in range(5)
                    ]
                )
                written[rate, layer, stride] = out if width.score is None else out * width.score
    outputs = {rate: written[rate, space.num_layers - 1, 1] for rate in (8, 16, 32)}
    return ends(outputs, {rate: finer_maps(space, p, read, rate) for rate in (8, 16, 32)})


def predecessors(
    space: SearchSpace, p: Probabilities, written: dict[tuple[int, int, int], Tensor], rate: int, layer: int
) -> Inputs:
    """What the layer before writes for a cell, weighted by beta."""
    halved, kept = written.get((rate // 2, layer - 1, 2)), written.get((rate, layer - 1, 1))
    if halved is None or kept is None:
        return [(1.0, halved if kept is None else kept)]
    beta = p.beta[rate][layer - space.first_layer(rate) - 1]
    return [(beta[0], halved), (beta[1], kept)]


def weighted_sum(terms: Inputs) -> Tensor:
    """Of maps whose widths may differ, filled up with zero channels."""
    widest = max(x.shape[1] for _, x in terms)
    return sum(weight * filled(x, widest) for weight, x in terms)


def operator(
    weights: dict[str, Tensor], name: str, kind: int, x: Tensor, c_out: int, index: int, stride: int
) -> Tensor:
    """One of skip, conv, conv x2, zoomed conv, zoomed conv x2 (sec. 3.1.2) with c_out channels, the index-th width."""

    def conv(part: str, x: Tensor, c_out: int, stride: int, padding: int) -> Tensor:
        kernel = weights[f"{name}.{part}.conv.weight"][:c_out, : x.shape[1]]
        x = F.conv2d(x, kernel, stride=stride, padding=padding)
        scale, shift = weights[f"{name}.{part}.norms.{index}.weight"], weights[f"{name}.{part}.norms.{index}.bias"]
        return F.batch_norm(x, None, None, scale, shift, training=True)

    if kind == 0 and stride == 1:
        return F.relu(conv("pointwise", x, c_out, 1, 0))
    if kind == 0:
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1 : x.shape[2] + 1, 1 : x.shape[3] + 1]
        halves = [conv("even", x, c_out // 2, 2, 0), conv("odd", shifted, c_out // 2, 2, 0)]
        return F.relu(torch.cat(halves, dim=1))
    size = (x.shape[2], x.shape[3])
    zoomed = kind in (3, 4)
    if zoomed:
        half = (-(-size[0] // 2), -(-size[1] // 2))
        x = F.interpolate(x, size=half, mode="bilinear", align_corners=True)
    x = conv("convs.0", x, c_out, 1 if zoomed else stride, 1)
    if kind in (2, 4):
        x = conv("convs.1", F.relu(x), c_out, 1, 1)
    if zoomed and stride == 1:
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    return F.relu(x)


def finer_maps(
    space: SearchSpace, p: Probabilities, inputs: dict[tuple[int, int], Tensor], branch: int
) -> dict[int, Tensor]:
    """The head's finer maps of one branch: what its paths' downsampling cells read, by probability."""
    weights: dict[tuple[int, int], Tensor] = {}  # rate, layer of a cell -> the probability that the path leaves there
    finer = [rate for rate in (8, 16) if rate < branch]
    for path in space.paths(branch):
        for rate in finer:
            last = (rate, path.index(2 * rate) - 1)
            weights[last] = weights.get(last, 0) + path_probability(space, p.beta, path)
    maps: dict[int, Tensor] = {}
    for rate in finer:
        leaving = [(weight, inputs[place]) for place, weight in weights.items() if place[0] == rate]
        maps[rate] = weighted_sum(leaving)
    return maps


def filled(x: Tensor, channels: int) -> Tensor:
    """A map with channels of zeros behind its own."""
    if x.shape[1] == channels:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], channels - x.shape[1], *x.shape[2:])], dim=1)
