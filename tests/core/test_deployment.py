import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fasterseg_core.config import NetworkOutput
from fasterseg_core.deployment import DeployedNetwork, upsampled_labels
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.operators import resize
from tests.builders import an_architecture


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 19, 12, 20), (96, 160)),
        ((1, 11, 45, 60), (360, 480)),
        ((1, 5, 10, 13), (73, 101)),  # 1/8 of odd sizes, rounded up
        ((1, 3, 2, 2), (9, 9)),
        ((1, 3, 4, 5), (4, 5)),
    ],
)
@pytest.mark.parametrize("smoothness", [1, 4], ids=["every patch is mixed", "most patches are of one class"])
def test_labels_are_those_of_full_size_logits(
    shape: tuple[int, int, int, int], size: tuple[int, int], smoothness: int
) -> None:
    batch, classes, height, width = shape
    small = noise(batch, classes, -(-height // smoothness), -(-width // smoothness))
    logits = F.interpolate(small, size=(height, width), mode="nearest")
    expected = resize(logits, size).topk(2, dim=1)

    labels = upsampled_labels(logits, size)

    assert (labels.shape, labels.dtype) == ((batch, *size), torch.uint8)
    differs = labels != expected.indices[:, 0]
    ties = (expected.values[:, 0] - expected.values[:, 1]).abs() < 1e-5
    assert not (differs & ~ties).any()
    assert ties.float().mean() < 0.01


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 3, 8, 8), (7, 64)), ((1, 3, 1, 8), (8, 64)), ((1, 256, 8, 8), (8, 8))]
)
def test_labels_that_cannot_be_made_are_refused(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be made from logits"):
        upsampled_labels(torch.zeros(shape), size)


def test_the_outputs_of_a_network_agree() -> None:
    network = SegmentationNetwork(an_architecture(), 11).eval()
    images = noise(2, 3, 64, 96)
    with torch.no_grad():
        logits, coarse, labels = (DeployedNetwork(network, output)(images) for output in NetworkOutput)

    assert torch.equal(logits, network(images))
    assert torch.equal(resize(coarse, (64, 96)), logits)
    assert (labels != logits.argmax(dim=1)).float().mean() < 1e-3
