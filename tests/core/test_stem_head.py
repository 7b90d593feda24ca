import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fasterseg_core.stem_head import Aggregation, BranchAggregation, FusedPrediction, Prediction, Stem


def convolutions(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def a_map(channels, *size):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(channels))


def test_the_stem_has_five_convolutions_three_of_them_strided():
    convs = convolutions(Stem(64))

    assert [conv.out_channels for conv in convs] == [32, 64, 64, 64, 64]
    assert [conv.stride[0] for conv in convs] == [2, 2, 1, 2, 1]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}


@torch.no_grad()
@pytest.mark.parametrize(("size", "at_8"), [((64, 96), (8, 12)), ((90, 117), (12, 15)), ((65, 71), (9, 9))])
def test_the_stem_writes_an_eighth_of_any_image_rounded_up(size, at_8):
    assert Stem(16).eval()(torch.zeros(1, 3, *size)).shape == (1, 16, *at_8)


@torch.no_grad()
def test_an_aggregation_upsamples_concatenates_and_convolves():
    step = Aggregation(c_in=8, c_skip=6, c_out=4).eval()
    low, skip = a_map(8, 3, 4), a_map(6, 5, 7)

    reduced = F.relu(F.batch_norm(F.conv2d(low, step.reduce[0].weight), torch.zeros(4), torch.ones(4)))
    both = torch.cat([F.interpolate(reduced, (5, 7), mode="bilinear", align_corners=True), skip], dim=1)
    expected = F.relu(F.batch_norm(F.conv2d(both, step.refine.conv.weight, padding=1), torch.zeros(4), torch.ones(4)))

    torch.testing.assert_close(step(low, skip), expected)


@torch.no_grad()
def test_a_narrower_finer_map_counts_as_one_filled_up_with_zeros():
    step = Aggregation(c_in=8, c_skip=6, c_out=4).eval()
    low, skip = a_map(8, 3, 4), a_map(2, 5, 7)

    torch.testing.assert_close(step(low, skip), step(low, F.pad(skip, (0, 0, 0, 0, 0, 4))))


def test_a_branch_at_an_eighth_needs_no_aggregation():
    aggregation, x = BranchAggregation(8, 2, {}), a_map(16, 5, 7)

    assert aggregation(x, {}) is x
    assert list(aggregation.parameters()) == []


@torch.no_grad()
def test_a_branch_at_a_thirty_second_takes_two_steps():
    aggregation = BranchAggregation(32, 2, {16: 20, 8: 12}).eval()
    x, finer = a_map(64, 3, 4), {16: a_map(20, 6, 7), 8: a_map(12, 11, 13)}
    first, second = aggregation.steps

    out = aggregation(x, finer)

    assert out.shape == (2, 16, 11, 13)
    torch.testing.assert_close(out, second(first(x, finer[16]), finer[8]))


@torch.no_grad()
def test_branches_are_fused_by_a_pointwise_convolution_before_the_prediction():
    head = FusedPrediction(num_branches=2, ratio=2, num_classes=5).eval()
    first, second = a_map(16, 4, 6), a_map(16, 4, 6) + 1

    logits = head([first, second])

    assert [(conv.in_channels, conv.out_channels, conv.kernel_size[0]) for conv in convolutions(head)] == [
        (32, 32, 1),
        (32, 32, 3),
        (32, 5, 1),
    ]
    torch.testing.assert_close(logits, head.prediction(head.fusion(torch.cat([first, second], dim=1))))


def test_a_prediction_keeps_the_size_of_its_map():
    assert Prediction(16, 5)(a_map(16, 3, 5)).shape == (2, 5, 3, 5)
