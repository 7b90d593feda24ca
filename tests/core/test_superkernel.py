import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fasterseg_core.superkernel import SuperConvBN, superkernel


def test_a_superkernel_is_the_first_channels_of_both_sides():
    weight = torch.arange(24.0).reshape(4, 6, 1, 1)

    assert superkernel(weight, 2, 3).flatten().tolist() == [0, 1, 2, 6, 7, 8]


def test_a_whole_kernel_is_not_sliced():
    weight = torch.zeros(4, 6, 3, 3)

    assert superkernel(weight, 4, 6) is weight


def test_the_gradients_of_several_widths_add_up_in_the_channels_that_they_used():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 5, 3, 3))
    plain = nn.Parameter(weight.detach().clone())
    maps = {(4, 3): torch.randn(1, 3, 7, 8), (2, 5): torch.randn(1, 5, 7, 8), (6, 5): torch.randn(1, 5, 7, 8)}

    for (c_out, c_in), x in maps.items():
        F.conv2d(x, superkernel(weight, c_out, c_in)).square().sum().backward()
        F.conv2d(x, plain[:c_out, :c_in]).square().sum().backward()

    torch.testing.assert_close(weight.grad, plain.grad)


def test_a_kernel_used_at_two_widths_in_one_graph_has_the_gradients_of_both():
    weight, x = nn.Parameter(torch.ones(2, 2, 1, 1)), torch.ones(1, 2, 1, 1)

    (F.conv2d(x[:, :1], superkernel(weight, 2, 1)).sum() + F.conv2d(x, superkernel(weight, 1, 2)).sum()).backward()

    assert weight.grad.flatten().tolist() == [2, 1, 1, 0]


def test_one_width_is_an_ordinary_convolution_and_batch_norm():
    torch.manual_seed(0)
    layer, x = SuperConvBN(4, (6,), stride=2).train(), torch.randn(2, 4, 7, 8)
    conv, norm = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6)
    conv.load_state_dict(layer.conv.state_dict())

    torch.testing.assert_close(layer(x, 6), norm(conv(x)))
    torch.testing.assert_close(layer.norms[0].running_var, norm.running_var)


def test_a_width_that_was_never_offered_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        SuperConvBN(4, (4, 8))(torch.zeros(1, 4, 5, 5), 6)
