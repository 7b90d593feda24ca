import pytest
import torch
from torch import nn

from fasterseg_core.superkernel import SuperConvBN, superkernel


def test_a_superkernel_is_the_first_channels_of_both_sides():
    weight = torch.arange(24.0).reshape(4, 6, 1, 1)

    assert superkernel(weight, 2, 3).flatten().tolist() == [0, 1, 2, 6, 7, 8]


def test_a_whole_kernel_is_not_sliced():
    weight = torch.zeros(4, 6, 3, 3)

    assert superkernel(weight, 4, 6) is weight


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
