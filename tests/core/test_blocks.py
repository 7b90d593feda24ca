import pytest
import torch

from fasterseg_core.blocks import build_operator
from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.operator_specs import OperatorSpec, architecture_specs, input_shapes, space_specs
from fasterseg_core.search_space import Resolution
from tests.builders import a_relaxation, a_resolution, a_search_space, an_architecture


def run(spec):
    return build_operator(spec)(*(torch.zeros(shape) for shape in input_shapes(spec)))


@torch.no_grad()
@pytest.mark.parametrize("resolution", [a_resolution(), a_resolution(71, 90)], ids=str)
def test_every_operator_of_a_space_runs_and_writes_its_channels(resolution):
    for spec in space_specs(a_search_space(expansion_ratios=(1, 3), student_ratio=1), resolution, 3):
        out = run(spec)

        size = (
            (spec.height, spec.width)
            if spec.operator == "upsample"
            else (
                -(-spec.height // spec.stride),
                -(-spec.width // spec.stride),
            )
        )
        assert out.shape == (1, spec.c_out, *size), spec.key


@pytest.mark.parametrize(
    ("key", "shapes"),
    [
        ("conv 8->16 7x9 /2", ((1, 8, 7, 9),)),
        ("stem 3->16 71x90 /8", ((1, 3, 71, 90),)),
        ("upsample 8->8 9x12 /2", ((1, 8, 5, 6),)),
        ("upsample 3->3 71x90 /8", ((1, 3, 9, 12),)),
        ("concat 8->24 9x12 /1", ((1, 8, 9, 12), (1, 16, 9, 12))),
        ("neighbours 8->8 9x12 /1", ((1, 16, 9, 12),)),
    ],
)
def test_an_operator_reads_tensors_of_its_shapes(key, shapes):
    assert input_shapes(OperatorSpec.from_key(key)) == shapes


@pytest.mark.parametrize("key", ["conv 8->16 7x9 /2", "stem 3->16 71x90 /8", "prediction 8->3 7x9 /1"])
def test_an_operator_is_in_evaluation_mode(key):
    assert not build_operator(OperatorSpec.from_key(key)).training


@pytest.mark.parametrize("seed", range(3))
def test_the_operators_of_a_network_have_its_parameters(seed):
    architecture = derive(a_relaxation(a_search_space(num_layers=5), Role.STUDENT, seed), (16, 32)).architecture
    specs = [spec for _, spec in architecture_specs(architecture, Resolution(height=64, width=96), 3)]

    parameters = sum(p.numel() for spec in specs for p in build_operator(spec).parameters())

    assert parameters == SegmentationNetwork(architecture, 3).num_parameters()


@torch.no_grad()
def test_the_operators_of_a_network_are_what_it_executes():
    architecture = an_architecture("conv 8 1, skip 8 1, zoomed_conv 8 2")
    network = SegmentationNetwork(architecture, 3).eval()
    x = torch.randn(1, 3, 71, 90, generator=torch.Generator().manual_seed(0))
    stem, *cells, fusion, prediction, upsampling = (
        build_operator(spec) for _, spec in architecture_specs(architecture, Resolution(height=71, width=90), 3)
    )
    stem.load_state_dict(network.stem.state_dict())
    for cell, source in zip(cells, network.cells[0], strict=True):
        cell.load_state_dict(source.state_dict())
    fusion.load_state_dict(network.head.fusion.state_dict())
    prediction.load_state_dict(network.head.prediction.state_dict())

    out = x
    for operator in (stem, *cells, fusion, prediction, upsampling):
        out = operator(out)

    torch.testing.assert_close(out, network(x))
