"""A network as an application reads it: full-size logits, logits at 1/8, or labels without full-size logits."""

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from fasterseg_core.config import NetworkOutput
from fasterseg_core.network import SegmentationNetwork


class DeployedNetwork(nn.Module):
    """A network with one of its outputs.

    Images (B, 3, H, W) -> logits (B, num_classes, H, W), coarse logits (B, num_classes, H/8, W/8), sizes rounded up, or
    labels (B, H, W) in uint8.
    """

    def __init__(self, network: SegmentationNetwork, output: NetworkOutput) -> None:
        super().__init__()
        self.network = network
        self.output = output

    def forward(self, images: Tensor) -> Tensor:
        match self.output:
            case NetworkOutput.LOGITS:
                logits: Tensor = self.network(images)
                return logits
            case NetworkOutput.COARSE_LOGITS:
                return self.network.coarse_logits(images)
            case NetworkOutput.LABELS:
                return upsampled_labels(self.network.coarse_logits(images), (images.shape[2], images.shape[3]))


def upsampled_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest class of each pixel after bilinear upsampling with aligned corners: (B, C, h, w) -> (B, *size) uint8.

    Between four samples of the same largest class every pixel has that class, since its logits are a weighted mean of
    theirs. Only the other patches are interpolated, so the time depends on how many there are.

    Raises:
        ValueError: `size` is smaller than the logits, these have fewer than two rows or columns, or 256 classes.
    """
    batch, classes, height, width = (int(length) for length in logits.shape)  # numbers, also where an export traces
    size = (int(size[0]), int(size[1]))
    if min(height, width) < 2 or size[0] < height or size[1] < width or classes > 255:
        raise ValueError(f"labels of size {size} cannot be made from logits of shape {tuple(logits.shape)}")
    rows, columns = _axis(height, size[0], logits.device), _axis(width, size[1], logits.device)
    coarse = logits.argmax(dim=1).to(torch.uint8)
    wide = coarse.index_select(2, columns.patch_of_pixel)  # before the rows, which are then copied whole
    labels = wide.index_select(1, rows.patch_of_pixel)
    left, right = coarse[:, :, :-1], coarse[:, :, 1:]
    differs = left != right
    mixed = differs[:, :-1] | differs[:, 1:] | (left[:, :-1] != left[:, 1:])
    image, row, column = mixed.nonzero().unbind(dim=1)
    samples = logits.permute(0, 2, 3, 1).reshape(batch * height * width, classes)
    corner = (image * height + row) * width + column
    fractions = columns.fractions.index_select(0, column)
    upper = _between(samples.index_select(0, corner), samples.index_select(0, corner + 1), fractions)
    corner = corner + width
    lower = _between(samples.index_select(0, corner), samples.index_select(0, corner + 1), fractions)
    fractions = rows.fractions.index_select(0, row)[:, :, None, None]
    patches = (upper[:, None] + fractions * (lower - upper)[:, None]).argmax(dim=3).to(torch.uint8)
    lines = image[:, None] * size[0] + rows.pixels.index_select(0, row)
    pixels = lines[:, :, None] * size[1] + columns.pixels.index_select(0, column)[:, None, :]
    return labels.flatten().scatter(0, pixels.flatten(), patches.flatten()).view(batch, *size)


@dataclass(frozen=True)
class _Axis:
    """How pixels lie between the samples of one axis; a patch has as many pixels as the largest, its last repeated."""

    patch_of_pixel: Tensor  # (pixels,)
    pixels: Tensor  # (patches, pixels of a patch)
    fractions: Tensor  # (patches, pixels of a patch): of the way from a patch's first sample to its second


def _axis(num_samples: int, num_pixels: int, device: torch.device) -> _Axis:
    step = Fraction(num_samples - 1, num_pixels - 1)
    patch_of_pixel = [min(int(pixel * step), num_samples - 2) for pixel in range(num_pixels)]
    pixels: list[list[int]] = [[] for _ in range(num_samples - 1)]
    for pixel, patch in enumerate(patch_of_pixel):
        pixels[patch].append(pixel)
    most = max(len(patch) for patch in pixels)
    filled = [patch + patch[-1:] * (most - len(patch)) for patch in pixels]
    fractions = [[float(pixel * step - patch) for pixel in filled[patch]] for patch in range(num_samples - 1)]
    return _Axis(
        torch.tensor(patch_of_pixel, device=device),
        torch.tensor(filled, device=device),
        torch.tensor(fractions, device=device),
    )


def _between(first: Tensor, second: Tensor, fractions: Tensor) -> Tensor:
    """Samples (K, C) and (K, C), fractions (K, P) -> (K, P, C)."""
    return first[:, None, :] + fractions[:, :, None] * (second - first)[:, None, :]
