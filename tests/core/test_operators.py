"""Every operator at every width and stride against plain dense layers with copied weights."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fasterseg_core.blocks import with_random_norms
from fasterseg_core.operators import DiscreteOperator, candidate, resize
from fasterseg_core.search_space import OPERATORS, Operator

WIDTHS_IN, WIDTHS_OUT = (2, 4, 6), (4, 6, 8)
EVERY_OPERATOR = [
    pytest.param(operator, stride, id=f"{operator}-{stride}") for operator, stride in product(OPERATORS, (1, 2))
]


def a_candidate(operator, stride):
    torch.manual_seed(1)
    return with_random_norms(candidate(operator, max(WIDTHS_IN), WIDTHS_OUT, stride))


def an_input(c_in=WIDTHS_IN[-1], size=(8, 12)):
    return torch.randn(2, c_in, *size, generator=torch.Generator().manual_seed(2))


def dense_conv(conv, c_in, c_out, stride):
    """A convolution with the first channels of another's kernel."""
    size = conv.kernel_size[0]
    dense = nn.Conv2d(c_in, c_out, size, stride=stride, padding=(size - 1) // 2, bias=False)
    for o, i in product(range(c_out), range(c_in)):
        dense.weight.data[o, i] = conv.weight.data[o, i]
    return dense


def dense_norm(norms, c_out):
    norm = nn.BatchNorm2d(c_out)
    norm.load_state_dict(next(n for n in norms if n.num_features == c_out).state_dict())
    return norm


def dense_conv_bn(layer, c_in, c_out, stride):
    return nn.Sequential(dense_conv(layer.conv, c_in, c_out, stride), dense_norm(layer.norms, c_out)).eval()


def naive_skip(operator, x, c_out, stride):
    if stride == 1:
        return F.relu(dense_conv_bn(operator.pointwise, x.shape[1], c_out, 1)(x))
    height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    padded = F.pad(x, (0, 1, 0, 1))
    corners = [x[:, :, ::2, ::2], padded[:, :, 1::2, 1::2][:, :, :height, :width]]
    halves = [
        dense_conv(half.conv, x.shape[1], c_out // 2, 1)(corner)
        for half, corner in zip((operator.even, operator.odd), corners, strict=True)
    ]
    even, odd = dense_norm(operator.even.norms, c_out // 2), dense_norm(operator.odd.norms, c_out // 2)
    mean, var, weight, bias = (
        torch.cat([getattr(even, name), getattr(odd, name)])
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu(F.batch_norm(torch.cat(halves, dim=1), mean, var, weight, bias))


def naive_convs(operator, x, c_out, stride):
    for i, layer in enumerate(operator.convs):
        x = F.relu(dense_conv_bn(layer, x.shape[1], c_out, 1 if i else stride)(x))
    return x


def naive_zoomed(operator, x, c_out, stride):
    height, width = x.shape[2:]
    x = F.interpolate(x, ((height + 1) // 2, (width + 1) // 2), mode="bilinear", align_corners=True)
    *inner, last = operator.convs
    for layer in inner:
        x = F.relu(dense_conv_bn(layer, x.shape[1], c_out, 1)(x))
    x = dense_conv_bn(last, x.shape[1], c_out, 1)(x)
    if stride == 1:
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=True)
    return F.relu(x)


NAIVE = {
    Operator.SKIP: naive_skip,
    Operator.CONV: naive_convs,
    Operator.CONV_X2: naive_convs,
    Operator.ZOOMED_CONV: naive_zoomed,
    Operator.ZOOMED_CONV_X2: naive_zoomed,
}


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (5, 8), (1, 2)], ids=str)
@pytest.mark.parametrize(("c_in", "c_out"), list(product(WIDTHS_IN, WIDTHS_OUT)))
@pytest.mark.parametrize(("operator", "stride"), EVERY_OPERATOR)
def test_an_operator_computes_what_a_dense_network_of_its_width_does(operator, stride, c_in, c_out, size):
    module, x = a_candidate(operator, stride), an_input(c_in, size)

    out = module(x, c_out)

    assert out.shape == (2, c_out, -(-size[0] // stride), -(-size[1] // stride))
    torch.testing.assert_close(out, NAIVE[operator](module, x, c_out, stride))


@torch.no_grad()
@pytest.mark.parametrize(("operator", "stride"), EVERY_OPERATOR)
def test_a_discrete_operator_is_a_candidate_of_one_width(operator, stride):
    one_width = with_random_norms(candidate(operator, 6, (4,), stride))
    module, x = DiscreteOperator(operator, 6, 4, stride).eval(), an_input(6, (7, 9))

    module.operator.load_state_dict(one_width.state_dict())

    torch.testing.assert_close(module(x), one_width(x, 4))


def test_a_derived_skip_between_equal_shapes_is_the_map_itself():
    x = an_input(4)

    assert DiscreteOperator(Operator.SKIP, 4, 4, 1)(x) is x


@torch.no_grad()
@pytest.mark.parametrize(("operator", "stride"), EVERY_OPERATOR)
def test_channels_beyond_the_first_play_no_part(operator, stride):
    module, x = a_candidate(operator, stride), an_input(2)
    before = module(x, 4)

    for conv in (layer for layer in module.modules() if isinstance(layer, nn.Conv2d)):
        conv.weight[2 if (operator, stride) == (Operator.SKIP, 2) else 4 :] = 100.0
        conv.weight[:, 2 if conv.in_channels == max(WIDTHS_IN) else 4 :] = 100.0

    torch.testing.assert_close(module(x, 4), before, rtol=0, atol=0)


@pytest.mark.parametrize(("operator", "stride"), EVERY_OPERATOR)
def test_only_the_first_channels_get_a_gradient(operator, stride):
    module = a_candidate(operator, stride).train()

    module(an_input(2), 4).square().sum().backward()

    first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)).weight.grad
    used = 2 if operator is Operator.SKIP and stride == 2 else 4
    assert first[:used, :2].abs().sum() > 0
    assert first[used:].abs().sum() == first[:, 2:].abs().sum() == 0


@pytest.mark.parametrize(("operator", "stride"), EVERY_OPERATOR)
def test_every_output_width_has_a_batch_norm_of_its_own(operator, stride):
    module = a_candidate(operator, stride)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    module.train()(an_input(), 6)

    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    running = [name for name in before if "running" in name or "num_batches" in name]
    assert changed == {name for name in running if "norms.1." in name}


def test_upsampling_keeps_the_corners_of_a_map():
    x = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])

    resized = resize(x, (3, 5))

    assert resized[0, 0].tolist() == [[0, 0.25, 0.5, 0.75, 1], [1, 1.25, 1.5, 1.75, 2], [2, 2.25, 2.5, 2.75, 3]]


@torch.no_grad()
@pytest.mark.parametrize("operator", [Operator.ZOOMED_CONV, Operator.ZOOMED_CONV_X2])
def test_a_zoomed_operator_of_stride_2_is_the_one_of_stride_1_before_its_upsampling(operator):
    slow, fast, x = a_candidate(operator, 1), a_candidate(operator, 2), an_input(6, (7, 9))
    fast.load_state_dict(slow.state_dict())

    # Corners stay where they are.
    torch.testing.assert_close(slow(x, 8)[:, :, 0, 0], fast(x, 8)[:, :, 0, 0])
    torch.testing.assert_close(slow(x, 8)[:, :, -1, -1], fast(x, 8)[:, :, -1, -1])
