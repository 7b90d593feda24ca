import pytest
import torch
from torch import nn

from fasterseg_core.blocks import with_random_norms
from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.search_space import OPERATORS, Operator
from fasterseg_core.subnetwork import recalibrate, subnetwork
from fasterseg_core.supernet import Supernet
from tests.builders import a_certain_relaxation, a_relaxation, a_search_space


def a_supernet(space):
    torch.manual_seed(0)
    return with_random_norms(Supernet(space, 3))


def batches(num_batches=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 64, 64, generator=generator) for _ in range(num_batches)]


@torch.no_grad()
def test_weights_are_the_first_channels_of_the_supernets():
    space = a_search_space(num_layers=3)
    supernet, derivation = a_supernet(space), derive(a_relaxation(space, seed=4), (8, 16))

    network = subnetwork(supernet, Role.STUDENT, derivation)

    branch = derivation.architecture.branches[0]
    operator = OPERATORS.index(branch.cells[0].operator)
    ratio = space.expansion_ratios.index(branch.cells[0].expansion_ratio)
    source, copy = supernet.cell(8, 0).keep.candidates[operator].convs[0], network.cells[0][0].operator.convs[0]
    c_out, c_in = copy.conv.weight.shape[:2]
    assert (c_out, c_in) == (branch.out_channels(0), 16)
    assert torch.equal(copy.conv.weight, source.conv.weight[:c_out, :c_in])
    assert torch.equal(copy.norms[0].running_var, source.norms[ratio].running_var)


@torch.no_grad()
def test_the_supernets_weights_are_copied_not_shared():
    space = a_search_space(num_layers=3)
    supernet = a_supernet(space)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}

    network = subnetwork(supernet, Role.STUDENT, derive(a_relaxation(space), (8, 16)))
    for p in network.parameters():
        p.zero_()

    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@torch.no_grad()
def test_a_derived_network_of_skips_runs_though_its_identities_have_no_weights():
    space = a_search_space(num_layers=6)
    relaxation = a_certain_relaxation(space, operators=[Operator.SKIP], seed=3)

    network = subnetwork(a_supernet(space), Role.STUDENT, derive(relaxation, (16, 32))).eval()

    assert network(batches()[0]).shape == (4, 3, 64, 64)


@torch.no_grad()
def test_a_subnetwork_predicts_the_classes_of_its_supernet():
    space = a_search_space(num_layers=3)

    network = subnetwork(a_supernet(space), Role.TEACHER, derive(a_relaxation(space, Role.TEACHER), (8, 32)))

    assert network.num_classes == 3
    assert network.architecture.stem_ratio == space.teacher_ratio


def test_recalibration_sets_the_mean_statistics_of_the_batches():
    norm, images = nn.BatchNorm2d(3), batches()

    recalibrate(norm, images)

    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in images]).mean(dim=0)
    variances = torch.stack([batch.var(dim=(0, 2, 3)) for batch in images]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_changes_statistics_only_and_leaves_the_mode(training):
    space = a_search_space(num_layers=3)
    network = subnetwork(a_supernet(space), Role.STUDENT, derive(a_relaxation(space), (8, 16))).train(training)
    before = {name: p.clone() for name, p in network.named_parameters()}
    statistics = network.stem[0][1].running_mean.clone()

    recalibrate(network, batches())

    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert all(p.grad is None for p in network.parameters())
    assert not torch.equal(network.stem[0][1].running_mean, statistics)
    assert network.training is training
    assert network.stem[0][1].momentum == 0.1


def test_recalibration_forgets_what_came_before():
    first, second = nn.BatchNorm2d(3), with_random_norms(nn.Sequential(nn.BatchNorm2d(3)))[0]

    recalibrate(first, batches())
    recalibrate(second, batches())

    torch.testing.assert_close(first.running_var, second.running_var)
