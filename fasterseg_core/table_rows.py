"""Which rows a latency table has: its space's operators, the neighbours between which they are measured, the canary."""

from collections.abc import Collection, Iterable

from fasterseg_core.config import NUM_CLASSES, ProfileConfig
from fasterseg_core.operator_specs import OperatorSpec, Structure, input_shapes, space_specs
from fasterseg_core.search_space import DOWNSAMPLE_RATES


def asked_rows(config: ProfileConfig) -> tuple[OperatorSpec, Collection[OperatorSpec]]:
    """The canary, and everything to measure in this order: the canary first, all neighbours before the operators."""
    specs = space_specs(config.space, config.resolution, NUM_CLASSES[config.dataset])
    canary = canary_spec(specs)
    operators = [canary, *_by_size(specs)[config.part - 1 :: config.parts]]  # by size: parts are alike
    neighbours = (neighbour for spec in operators for neighbour in neighbours_around(config, spec))
    return canary, dict.fromkeys((*neighbours_around(config, canary), canary, *neighbours, *operators))


def canary_spec(specs: Collection[OperatorSpec]) -> OperatorSpec:
    """The operator whose time is watched throughout: one of middling size."""
    operators = _by_size(spec for spec in specs if spec.operator is not Structure.NEIGHBOURS)
    return operators[len(operators) // 2]


def neighbours_around(config: ProfileConfig, spec: OperatorSpec) -> tuple[OperatorSpec, ...]:
    """The neighbours of an operator, none where operators are measured alone."""
    return () if config.alone else neighbours_of(spec)


def neighbours_of(spec: OperatorSpec) -> tuple[OperatorSpec, ...]:
    """The neighbours, with nothing between, of each map that an operator reads or writes."""
    maps = [shape[1:] for shape in input_shapes(spec)] if has_before(spec) else []
    if has_after(spec):
        maps.append((spec.c_out, *spec.output_size))
    return tuple(
        OperatorSpec(operator=Structure.NEIGHBOURS, c_in=channels, c_out=channels, height=height, width=width)
        for channels, height, width in maps
    )


def has_before(spec: OperatorSpec) -> bool:
    """Whether neighbours write what the operator reads: a stem reads the image itself."""
    return spec.operator not in (Structure.STEM, Structure.NEIGHBOURS)


def has_after(spec: OperatorSpec) -> bool:
    """Whether a neighbour reads what the operator writes: the last upsampling writes the logits themselves."""
    is_last = spec.operator is Structure.UPSAMPLE and spec.stride == DOWNSAMPLE_RATES[0]
    return spec.operator is not Structure.NEIGHBOURS and not is_last


def _by_size(specs: Iterable[OperatorSpec]) -> list[OperatorSpec]:
    return sorted(specs, key=lambda spec: (spec.macs, spec.key))
