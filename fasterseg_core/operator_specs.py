"""What a network executes, operator by operator: the terms of MAC counts and, with neighbours, the keys of tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import islice, product

from fasterseg_core.architecture import Architecture, Branch
from fasterseg_core.search_space import DOWNSAMPLE_RATES, OPERATORS, Operator, Resolution, SearchSpace

NEIGHBOUR_CHANNELS = 16  # few, so that reordering them costs little; a whole block where engines have blocks


class Structure(StrEnum):
    """What surrounds the cells (appendix A). The 3x3 fusions of the head are `Operator.CONV` like any other."""

    STEM = "stem"  # image -> 1/8
    POINTWISE = "pointwise"  # 1x1 convolution, batch norm, ReLU
    UPSAMPLE = "upsample"  # bilinear; height and width are the larger map's, stride the factor
    CONCAT = "concat"  # c_in channels and c_out - c_in others
    PREDICTION = "prediction"  # 3x3 convolution, batch norm, ReLU, 1x1 convolution to classes
    NEIGHBOURS = "neighbours"  # in no network: POINTWISE from NEIGHBOUR_CHANNELS channels to c_in, and back


@dataclass(frozen=True, kw_only=True)
class OperatorSpec:
    """One operator at fixed shapes, batch 1; height and width are the input's, but the output's for UPSAMPLE."""

    operator: Operator | Structure
    c_in: int
    c_out: int
    height: int
    width: int
    stride: int = 1

    @property
    def key(self) -> str:
        """The canonical text of the operator, for example `conv_x2 64->128 45x60 /2`."""
        return f"{self.operator} {self.c_in}->{self.c_out} {self.height}x{self.width} /{self.stride}"

    @classmethod
    def from_key(cls, key: str) -> "OperatorSpec":
        """The operator of a canonical text; ValueError where it is none."""
        try:
            name, channels, size, stride = key.split(" ")
            c_in, c_out = channels.split("->")
            height, width = size.split("x")
            operator = Operator(name) if name in set(Operator) else Structure(name)
            spec = cls(
                operator=operator,
                c_in=int(c_in),
                c_out=int(c_out),
                height=int(height),
                width=int(width),
                stride=int(stride.removeprefix("/")),
            )
        except ValueError as error:
            raise ValueError(f"{key!r} is not an operator key such as 'conv 64->64 45x60 /1'") from error
        if spec.key != key:
            raise ValueError(f"{key!r} is not canonical; write {spec.key!r}")
        return spec

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions; interpolation, normalisation and activation are not counted."""
        height, width = self.output_size
        half = -(-self.height // 2) * -(-self.width // 2)
        match self.operator:
            case Operator.SKIP:
                return 0 if self.is_identity else self.c_in * self.c_out * height * width
            case Operator.CONV:
                return 9 * self.c_in * self.c_out * height * width
            case Operator.CONV_X2:
                return 9 * (self.c_in + self.c_out) * self.c_out * height * width
            case Operator.ZOOMED_CONV:
                return 9 * self.c_in * self.c_out * half
            case Operator.ZOOMED_CONV_X2:
                return 9 * (self.c_in + self.c_out) * self.c_out * half
            case Structure.STEM:
                return sum(
                    9 * c_in * c_out * -(-self.height // rate) * -(-self.width // rate)
                    for c_in, c_out, rate in stem_convolutions(self.c_out)
                )
            case Structure.POINTWISE:
                return self.c_in * self.c_out * height * width
            case Structure.PREDICTION:
                return (9 * self.c_in + self.c_out) * self.c_in * height * width
            case Structure.NEIGHBOURS:
                return 2 * NEIGHBOUR_CHANNELS * self.c_in * height * width
            case Structure.UPSAMPLE | Structure.CONCAT:
                return 0

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of what the operator writes."""
        stride = 1 if self.operator is Structure.UPSAMPLE else self.stride
        return -(-self.height // stride), -(-self.width // stride)

    @property
    def is_identity(self) -> bool:
        """Whether a derived skip connection is the identity: equal shapes on both sides."""
        return self.operator is Operator.SKIP and self.stride == 1 and self.c_in == self.c_out


def input_shapes(spec: OperatorSpec) -> tuple[tuple[int, int, int, int], ...]:
    """The shapes (1, C, H, W) of what the operator reads; two for CONCAT."""
    match spec.operator:
        case Structure.UPSAMPLE:
            return ((1, spec.c_in, -(-spec.height // spec.stride), -(-spec.width // spec.stride)),)
        case Structure.CONCAT:
            return (
                (1, spec.c_in, spec.height, spec.width),
                (1, spec.c_out - spec.c_in, spec.height, spec.width),
            )
        case Structure.NEIGHBOURS:
            return ((1, NEIGHBOUR_CHANNELS, spec.height, spec.width),)
        case _:
            return ((1, spec.c_in, spec.height, spec.width),)


def stem_convolutions(c_out: int) -> tuple[tuple[int, int, int], ...]:
    """The (c_in, c_out, downsample rate after it) of the stem's five convolutions (appendix A)."""
    half = c_out // 2
    return (3, half, 2), (half, c_out, 4), (c_out, c_out, 4), (c_out, c_out, 8), (c_out, c_out, 8)


def cell_spec(
    operator: Operator, *, rate: int, stride: int, ratio_in: int, ratio_out: int, resolution: Resolution
) -> OperatorSpec:
    """The spec of one operator of a cell at s = rate between two expansion ratios."""
    height, width = resolution.at(rate)
    return OperatorSpec(
        operator=operator,
        c_in=ratio_in * rate,
        c_out=ratio_out * rate * stride,
        height=height,
        width=width,
        stride=stride,
    )


@lru_cache(maxsize=4096)
def stem_spec(ratio: int, resolution: Resolution) -> OperatorSpec:
    """The spec of a stem that writes `ratio` x 8 channels at 1/8."""
    return OperatorSpec(
        operator=Structure.STEM,
        c_in=3,
        c_out=ratio * DOWNSAMPLE_RATES[0],
        height=resolution.height,
        width=resolution.width,
        stride=DOWNSAMPLE_RATES[0],
    )


@lru_cache(maxsize=4096)
def aggregation_specs(rate: int, skip_channels: int, ratio: int, resolution: Resolution) -> tuple[OperatorSpec, ...]:
    """One step of the head from 1/rate to 2/rate: 1x1, upsample, concatenate the finer map, 3x3 (appendix A)."""
    c_in, c_out = ratio * rate, ratio * rate // 2
    low, (height, width) = resolution.at(rate), resolution.at(rate // 2)
    both = c_out + skip_channels
    return (
        OperatorSpec(operator=Structure.POINTWISE, c_in=c_in, c_out=c_out, height=low[0], width=low[1]),
        OperatorSpec(operator=Structure.UPSAMPLE, c_in=c_out, c_out=c_out, height=height, width=width, stride=2),
        OperatorSpec(operator=Structure.CONCAT, c_in=c_out, c_out=both, height=height, width=width),
        OperatorSpec(operator=Operator.CONV, c_in=both, c_out=c_out, height=height, width=width),
    )


@lru_cache(maxsize=4096)
def prediction_specs(
    num_branches: int, ratio: int, resolution: Resolution, num_classes: int
) -> tuple[OperatorSpec, ...]:
    """What follows the branches at 1/8: concatenation and 1x1 fusion, prediction, upsampling to the image."""
    one = ratio * DOWNSAMPLE_RATES[0]
    channels = num_branches * one
    height, width = resolution.at(DOWNSAMPLE_RATES[0])
    concat = OperatorSpec(operator=Structure.CONCAT, c_in=one, c_out=channels, height=height, width=width)
    return (
        *((concat,) if num_branches > 1 else ()),
        OperatorSpec(operator=Structure.POINTWISE, c_in=channels, c_out=channels, height=height, width=width),
        OperatorSpec(operator=Structure.PREDICTION, c_in=channels, c_out=num_classes, height=height, width=width),
        OperatorSpec(
            operator=Structure.UPSAMPLE,
            c_in=num_classes,
            c_out=num_classes,
            height=resolution.height,
            width=resolution.width,
            stride=DOWNSAMPLE_RATES[0],
        ),
    )


def architecture_specs(
    architecture: Architecture, resolution: Resolution, num_classes: int
) -> Iterator[tuple[str, OperatorSpec]]:
    """Everything that the network executes once per image, each with its part; shared cells come once.

    Parts: stem, cells, aggregation, prediction (fusion and final upsampling included).
    """
    yield "stem", stem_spec(architecture.stem_ratio, resolution)
    for number, branch in enumerate(architecture.branches):
        own = architecture.num_shared_cells if number else 0
        for spec in islice(branch_cell_specs(branch, architecture.stem_ratio, resolution), own, None):
            yield "cells", spec
    for branch in architecture.branches:
        for rate in range_down(branch.downsample_rate):
            skip = branch.in_channels(branch.downsampling_index(rate // 2), architecture.stem_ratio)
            for spec in aggregation_specs(rate, skip, architecture.head_ratio, resolution):
                yield "aggregation", spec
    for spec in prediction_specs(len(architecture.branches), architecture.head_ratio, resolution, num_classes):
        yield "prediction", spec


def branch_cell_specs(branch: Branch, stem_ratio: int, resolution: Resolution) -> Iterator[OperatorSpec]:
    """The spec of each cell of a branch, in order."""
    c_in = stem_ratio * DOWNSAMPLE_RATES[0]
    for cell, following in zip(branch.cells, (*branch.cells[1:], branch.cells[-1]), strict=True):
        rate, rate_out = cell.downsample_rate, following.downsample_rate
        c_out = cell.expansion_ratio * rate_out
        yield _cell_spec(cell.operator, c_in, c_out, resolution, rate, rate_out // rate)
        c_in = c_out


@lru_cache(maxsize=65536)
def _cell_spec(
    operator: Operator, c_in: int, c_out: int, resolution: Resolution, rate: int, stride: int
) -> OperatorSpec:
    """One object for one spec: thousands of networks a second are made of a few hundred."""
    height, width = resolution.at(rate)
    return OperatorSpec(operator=operator, c_in=c_in, c_out=c_out, height=height, width=width, stride=stride)


def range_down(rate: int) -> tuple[int, ...]:
    """The rates from one down to 16, the sources of the head's upsampling steps: 32 -> (32, 16), 8 -> ()."""
    return tuple(r for r in reversed(DOWNSAMPLE_RATES[1:]) if r <= rate)


def space_specs(space: SearchSpace, resolution: Resolution, num_classes: int) -> list[OperatorSpec]:
    """Every operator that any network of the space can execute, without repetition: the keys of a complete table."""
    specs = [stem_spec(ratio, resolution) for ratio in (space.student_ratio, space.teacher_ratio)]
    ratios = space.expansion_ratios
    for rate, operator, ratio_in, ratio_out in product(DOWNSAMPLE_RATES, OPERATORS, ratios, ratios):
        for stride in (1,) if rate == DOWNSAMPLE_RATES[-1] else (1, 2):
            specs.append(
                cell_spec(
                    operator, rate=rate, stride=stride, ratio_in=ratio_in, ratio_out=ratio_out, resolution=resolution
                )
            )
    for head in (space.student_ratio, space.teacher_ratio):
        for rate, ratio in product(DOWNSAMPLE_RATES[1:], ratios):
            specs.extend(aggregation_specs(rate, ratio * rate // 2, head, resolution))
        for num_branches in (1, 2):
            specs.extend(prediction_specs(num_branches, head, resolution, num_classes))
    return list(dict.fromkeys(specs))
