"""Values that tests build again and again, small and with defaults: a test says only what matters to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fasterseg_core.architecture import Architecture, Branch, Cell
from fasterseg_core.config import IGNORE_LABEL, DatasetName, RetrainConfig, Role, SearchConfig, SgdConfig
from fasterseg_core.latency_table import Fingerprint, LatencyRow, LatencyTable
from fasterseg_core.operator_specs import OperatorSpec, space_specs
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import OPERATORS, Operator, Resolution, SearchSpace


def a_search_space(
    num_layers: int = 4, expansion_ratios: tuple[int, ...] = (1, 2, 3), student_ratio: int = 2
) -> SearchSpace:
    return SearchSpace(num_layers=num_layers, expansion_ratios=expansion_ratios, student_ratio=student_ratio)


def a_resolution(height: int = 64, width: int = 96) -> Resolution:
    return Resolution(height=height, width=width)


def a_branch(rows: str) -> Branch:
    """Cells given as "operator rate ratio", one a line or separated by commas."""
    cells = (row.split() for row in rows.replace(",", "\n").strip().splitlines())
    return Branch(
        tuple(
            Cell(operator=Operator(name), downsample_rate=int(rate), expansion_ratio=int(ratio))
            for name, rate, ratio in cells
        )
    )


def an_architecture(*branches: str, stem_ratio: int = 2) -> Architecture:
    """By default two branches that share their first cell."""
    rows = branches or ("conv 8 1, zoomed_conv 8 3, conv_x2 16 2", "conv 8 1, conv 8 2, skip 16 3, zoomed_conv_x2 32 2")
    return Architecture(stem_ratio=stem_ratio, branches=tuple(a_branch(row) for row in rows))


def a_fingerprint(**changes) -> Fingerprint:
    defaults = {
        "engine": "none",
        "engine_version": "1",
        "device": "a device",
        "driver": "none",
        "threads": 1,
        "precision": "fp32",
        "protocol": "computed from MACs",
        "resolution": a_resolution(),
        "num_classes": 3,
    }
    return Fingerprint(**{**defaults, **changes})


def a_latency_row(milliseconds: float = 1.0, **changes) -> LatencyRow:
    defaults = {"lower_quartile": milliseconds, "upper_quartile": milliseconds, "samples": 5}
    return LatencyRow(milliseconds=milliseconds, **{**defaults, **changes})


def milliseconds_of(spec: OperatorSpec) -> float:
    """What `a_latency_table` says of an operator: a microsecond, and a nanosecond for each MAC."""
    return 0.001 + spec.macs * 1e-6


def a_latency_table(
    space: SearchSpace | None = None, resolution: Resolution | None = None, num_classes: int = 3
) -> LatencyTable:
    """A complete table of a space."""
    resolution = resolution or a_resolution()
    specs = space_specs(space or a_search_space(), resolution, num_classes)
    return LatencyTable(
        a_fingerprint(resolution=resolution, num_classes=num_classes),
        {spec: a_latency_row(milliseconds_of(spec)) for spec in specs},
    )


def a_relaxation(space: SearchSpace | None = None, role: Role = Role.STUDENT, seed: int = 0) -> Relaxation:
    """Random scalars, none of them extreme."""
    relaxation = Relaxation(space or a_search_space(), role)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for logits in relaxation.parameters():
            logits.copy_(torch.randn(logits.shape, generator=generator))
    return relaxation


def a_certain_relaxation(
    space: SearchSpace | None = None,
    role: Role = Role.STUDENT,
    seed: int = 0,
    operators: Sequence[Operator] = OPERATORS[1:],
) -> Relaxation:
    """One random choice in every row with probability 1; operators are drawn from those given, by default no skips."""
    relaxation = Relaxation(space or a_search_space(), role)
    generator = torch.Generator().manual_seed(seed)
    for name, logits in relaxation.named_parameters():
        allowed = [OPERATORS.index(op) for op in operators] if name.startswith("alpha") else range(logits.shape[1])
        choices = torch.tensor(list(allowed))[torch.randint(len(allowed), (len(logits),), generator=generator)]
        with torch.no_grad():
            logits.fill_(-1e4).scatter_(1, choices[:, None], 0.0)
    return relaxation


@dataclass(frozen=True)
class ColourBlocks:
    """Images of noisy blocks whose colour tells their class, with a corner that nobody labelled."""

    num_images: int = 16
    height: int = 64
    width: int = 96
    classes: tuple[str, ...] = ("red", "green", "blue")
    colours: tuple[tuple[int, int, int], ...] = ((200, 40, 40), (40, 200, 40), (40, 40, 200))

    def __len__(self) -> int:
        return self.num_images

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        blocks = torch.randint(len(self.classes), (self.height // 16, self.width // 16), generator=generator)
        mask = blocks.repeat_interleave(16, 0).repeat_interleave(16, 1)
        noise = torch.randint(-30, 31, (3, *mask.shape), generator=generator)
        image = (torch.tensor(self.colours)[mask].permute(2, 0, 1) + noise).clamp(0, 255)
        mask[:4, :4] = IGNORE_LABEL
        return image.to(torch.uint8), mask.to(torch.uint8)


def a_search_config(**changes) -> SearchConfig:
    """One epoch of each phase, two steps each, for `ColourBlocks` and `a_latency_table`."""
    defaults = {
        "space": a_search_space(),
        "dataset": DatasetName.STREET_SCENES,
        "resolution": a_resolution(),
        "image_scale": 1.0,
        "crop": a_resolution(64, 64),
        "batch_size": 2,
        "pretrain_epochs": 1,
        "epochs": 1,
        "steps_per_epoch": 2,
    }
    return SearchConfig(**{**defaults, **changes})


def a_retrain_config(**changes) -> RetrainConfig:
    """Two epochs of two steps for `ColourBlocks`."""
    defaults = {
        "dataset": DatasetName.STREET_SCENES,
        "resolution": a_resolution(),
        "crop": a_resolution(64, 64),
        "scales": (1.0,),
        "batch_size": 2,
        "epochs": 2,
        "steps_per_epoch": 2,
        "evaluate_every": 1,
        "optimizer": SgdConfig(learning_rate=0.01),
        "annealed_to": 0.81,  # x 0.9 after each of two epochs
    }
    return RetrainConfig(**{**defaults, **changes})


def a_published_search(relaxation: Relaxation, index: int = 1) -> dict[str, object]:
    """What the published code saves of a search: operators in its own order, numbers of numpy beside the tensors."""
    content: dict[str, object] = {"mIoU12": np.float64(0.06), "latency12": 6.4}
    for name, logits in relaxation.named_parameters():
        kind, rate = name.split(".")
        columns = [0, 1, 3, 2, 4] if kind == "alpha" else slice(None)
        published = {"gamma": "ratio"}.get(kind, kind)
        content[f"{published}_{index}_{(8, 16, 32).index(int(rate))}"] = nn.Parameter(logits.detach()[:, columns])
    return content
