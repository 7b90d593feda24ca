"""From a uint8 sample to the network's input: resizing, augmentation and normalisation (appendix H).

Everything is done by NumPy and Pillow, in the calling thread and without Python's lock: batches are prepared beside the
training, and torch would share each of these small operations among all cores, which costs more than it does itself.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.search_space import Resolution

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MEAN_COLOUR = np.array([[[round(255 * mean)]] for mean in IMAGENET_MEAN], np.uint8)  # padding, about 0 normalised

Size = tuple[int, int]  # height, width
Pixels = NDArray[np.uint8]  # an image (3, H, W) or a mask (H, W)


def scaled_size(resolution: Resolution, scale: float) -> Size:
    """The (height, width) of a resolution times a scale, such as half of the device's in training (appendix H)."""
    return round(resolution.height * scale), round(resolution.width * scale)


def resize(image: Tensor, mask: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """An image (3, H, W), bilinear and antialiased, and its mask (H, W), nearest, at another size."""
    if tuple(mask.shape) == size:
        return image, mask
    resized_image, resized_mask = _resized(image.numpy(), mask.numpy(), size)
    return torch.from_numpy(resized_image), torch.from_numpy(resized_mask)


class TrainingTransform:
    """Random scale of the base size, crop, horizontal flip and, where `jitter` > 0, brightness, contrast, saturation.

    Called with an image (3, H, W) and a mask (H, W), both uint8, and a seed that decides everything; returns float32
    (3, h, w), normalised, and int64 (h, w) at the crop's size. What lies outside of the image is IGNORE_LABEL.
    """

    def __init__(self, *, base: Size, crop: Resolution, scales: Sequence[float] = (1.0,), jitter: float = 0.0) -> None:
        self.sizes = [(round(base[0] * scale), round(base[1] * scale)) for scale in scales]
        self.crop = (crop.height, crop.width)
        self.jitter = jitter

    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        pixels, labels = _resized(image.numpy(), mask.numpy(), self.sizes[_draw(len(self.sizes), generator)])
        pixels, labels = _padded(pixels, labels, self.crop)
        top, left = (
            _draw(side - wanted + 1, generator) if side > wanted else 0
            for side, wanted in zip(labels.shape, self.crop, strict=True)
        )
        place = (slice(top, top + self.crop[0]), slice(left, left + self.crop[1]))
        pixels, labels = pixels[:, *place], labels[place]
        if float(torch.rand(1, generator=generator)) < 0.5:
            pixels, labels = pixels[:, :, ::-1], labels[:, ::-1]
        if self.jitter:
            pixels = _jittered(pixels, self.jitter, generator)
        return _to_network(pixels, labels)


class EvaluationTransform:
    """The whole image and its mask at one resolution, normalised: float32 (3, h, w) and int64 (h, w)."""

    def __init__(self, resolution: Resolution) -> None:
        self.size = (resolution.height, resolution.width)

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return _to_network(*_resized(image.numpy(), mask.numpy(), self.size))


def denormalise(images: Tensor) -> Tensor:
    """Normalised images (..., 3, h, w) as uint8 pixels again, for pictures."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _resized(image: Pixels, mask: Pixels, size: Size) -> tuple[Pixels, Pixels]:
    if mask.shape == size:
        return image, mask
    columns_rows = (size[1], size[0])
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize(columns_rows, Image.Resampling.BILINEAR)
    labels = Image.fromarray(mask).resize(columns_rows, Image.Resampling.NEAREST)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), np.array(labels)


def _padded(image: Pixels, mask: Pixels, size: Size) -> tuple[Pixels, Pixels]:
    """On each side, what a size is larger, so that a crop may show the image anywhere."""
    rows, columns = (max(wanted - side, 0) for wanted, side in zip(size, mask.shape, strict=True))
    if not rows and not columns:
        return image, mask
    height, width = mask.shape
    wide = np.full((height + 2 * rows, width + 2 * columns), IGNORE_LABEL, np.uint8)
    canvas = np.tile(_MEAN_COLOUR, (1, *wide.shape))
    place = (slice(rows, rows + height), slice(columns, columns + width))
    canvas[:, *place], wide[place] = image, mask
    return canvas, wide


def _jittered(image: Pixels, jitter: float, generator: torch.Generator) -> Pixels:
    """Brightness, contrast and saturation, in random order, each by a factor between 1 - jitter and 1 + jitter."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    order: list[int] = torch.randperm(len(enhancers), generator=generator).tolist()
    factors: list[float] = (1 + jitter * (2 * torch.rand(len(enhancers), generator=generator) - 1)).tolist()
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    for i in order:
        picture = enhancers[i](picture).enhance(max(factors[i], 0.0))
    return np.asarray(picture).transpose(2, 0, 1)


def _to_network(image: Pixels, mask: Pixels) -> tuple[Tensor, Tensor]:
    normalised = np.stack([values[channel] for values, channel in zip(_NORMALISED, image, strict=True)])
    return torch.from_numpy(normalised), torch.from_numpy(mask.astype(np.int64))


def _draw(count: int, generator: torch.Generator) -> int:
    """One of the first natural numbers."""
    return int(torch.randint(count, (), generator=generator))


def _normalised_values() -> NDArray[np.float32]:
    """(3, 256): what each value of each channel becomes."""
    mean, std = (np.array(values, np.float32)[:, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    values: NDArray[np.float32] = (np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std
    return values


_NORMALISED = _normalised_values()
