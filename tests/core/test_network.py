import io

import pytest
import torch
from torch import nn

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.blocks import with_random_norms
from fasterseg_core.checkpoint import CheckpointError, CheckpointKind, pack, unpack
from fasterseg_core.network import SegmentationNetwork, load_network, save_network
from fasterseg_core.operators import DiscreteOperator, resize
from tests.builders import an_architecture

ONE_BRANCH = ("conv 8 1, skip 8 1, zoomed_conv 8 2",)
AT_8_AND_16 = ("conv 8 1, conv_x2 8 2", "conv 8 1, zoomed_conv_x2 8 3, conv 16 2")
AT_16_AND_32 = ("conv 8 1, conv 8 3, zoomed_conv 16 2", "conv 8 1, conv 8 3, conv_x2 16 3, conv 32 2")


def a_network(*rows, num_classes=3, seed=0):
    torch.manual_seed(seed)
    return with_random_norms(SegmentationNetwork(an_architecture(*rows), num_classes), seed)


def images(height=64, width=96):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(360, 480), (720, 960), (90, 118), (241, 321), (64, 65)])
@pytest.mark.parametrize("rows", [ONE_BRANCH, AT_8_AND_16, AT_16_AND_32, ()], ids=["8", "8+16", "16+32", "16+32 skip"])
def test_logits_have_the_size_of_any_image(rows, height, width):
    assert a_network(*rows)(images(height, width)).shape == (1, 3, height, width)


@torch.no_grad()
def test_a_720_by_960_like_odd_image_runs():
    assert a_network()(images(721, 961)).shape == (1, 3, 721, 961)


@torch.no_grad()
def test_training_gives_a_prediction_of_every_branch_above_an_eighth():
    both, coarse = a_network(*AT_16_AND_32), a_network(*AT_8_AND_16)

    logits, auxiliary = both.training_logits(images())
    assert logits.shape == (1, 3, 64, 96)
    assert [tuple(x.shape) for x in auxiliary] == [(1, 3, 8, 12)] * 2
    assert len(coarse.training_logits(images())[1]) == 1
    torch.testing.assert_close(logits, both(images()))


@torch.no_grad()
def test_the_network_computes_its_branches_cell_by_cell():
    """Both branches run from the stem on their own, with the shared cells' weights in each."""
    network, x = a_network(*AT_16_AND_32), images()
    shared = network.architecture.num_shared_cells
    first, second = network.cells[0], [*network.cells[0][:shared], *network.cells[1]]
    assert shared == 2

    maps = []
    for operators in (first, second):
        maps.append([network.stem(x)])
        for operator in operators:
            maps[-1].append(operator(maps[-1][-1]))
    at_16 = network.aggregations[0](maps[0][-1], {8: maps[0][1]})
    at_32 = network.aggregations[1](maps[1][-1], {16: maps[1][2], 8: maps[1][1]})
    expected = resize(network.head([at_16, at_32]), (64, 96))

    torch.testing.assert_close(network(x), expected)


def test_a_shared_cell_is_executed_once():
    network = a_network(*AT_16_AND_32)
    calls = []
    for module in (m for m in network.modules() if isinstance(m, DiscreteOperator)):
        module.register_forward_hook(lambda module, *_: calls.append(module))

    network(images())

    assert len(calls) == len(set(calls)) == 3 + 4 - 2


def test_table_7_has_3_421_875_parameters_for_inference():
    network = SegmentationNetwork(TABLE_7, 19)

    assert network.num_parameters() == 3_421_875
    assert sum(p.numel() for p in network.auxiliary.parameters()) > 0


def test_auxiliary_predictions_take_no_part_in_inference():
    network = a_network(*AT_16_AND_32)

    network(images()).sum().backward()

    assert all(p.grad is None for p in network.auxiliary.parameters())
    assert all(p.grad is not None for name, p in network.named_parameters() if not name.startswith("auxiliary"))


@torch.no_grad()
def test_table_7_runs():
    assert SegmentationNetwork(TABLE_7, 19).eval()(images(64, 128)).shape == (1, 19, 64, 128)


@torch.no_grad()
def test_a_saved_network_loads_with_the_same_output():
    network = a_network(*AT_16_AND_32)

    loaded = load_network(save_network(network))

    assert loaded.architecture == network.architecture
    assert loaded.num_classes == 3
    assert not loaded.training
    assert torch.equal(loaded(images()), network(images()))


class Intruder:
    def __reduce__(self):
        return print, ("code of a blob ran",)


def test_a_blob_that_carries_code_is_refused_and_not_run(capsys):
    buffer = io.BytesIO()
    torch.save({"architecture": Intruder(), "num_classes": 3, "weights": {}}, buffer)

    with pytest.raises(CheckpointError, match="not a FasterSeg checkpoint"):
        load_network(buffer.getvalue())

    assert capsys.readouterr().out == ""


def test_weights_of_another_architecture_are_refused():
    state = unpack(save_network(a_network(*ONE_BRANCH)), CheckpointKind.NETWORK)
    state["architecture"] = an_architecture("conv 8 3, conv 8 2").to_document()

    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key|Unexpected key"):
        load_network(pack(state, CheckpointKind.NETWORK))


def test_a_network_of_one_branch_has_no_second_list_of_cells():
    network = SegmentationNetwork(an_architecture(*ONE_BRANCH), 3)

    assert [len(cells) for cells in network.cells] == [3]
    assert isinstance(network.auxiliary, nn.ModuleList)
    assert len(network.auxiliary) == 0
