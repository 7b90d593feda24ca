"""From a uint8 sample to the network's input: resizing, augmentation and normalisation (appendix H)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.torchvision_v2 import functional, tv_tensors, v2
from fasterseg_core.search_space import Resolution

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MEAN_COLOUR = [round(255 * mean) for mean in IMAGENET_MEAN]  # padding, about 0 once normalised

Size = tuple[int, int]  # height, width


def scaled_size(resolution: Resolution, scale: float) -> Size:
    """The (height, width) of a resolution times a scale, such as half of the device's in training (appendix H)."""
    return round(resolution.height * scale), round(resolution.width * scale)


def resize(image: Tensor, mask: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """An image (3, H, W), bilinear and antialiased, and its mask (H, W), nearest, at another size."""
    if tuple(mask.shape) == size:
        return image, mask
    nearest = v2.InterpolationMode.NEAREST_EXACT  # NEAREST shifts a mask against its image where it shrinks
    image = functional.resize(image, list(size), antialias=True)
    return image, functional.resize(mask[None], list(size), interpolation=nearest)[0]


class TrainingTransform:
    """Random scale of the base size, crop, horizontal flip and, where `jitter` > 0, brightness, contrast, saturation.

    Called with an image (3, H, W) and a mask (H, W), both uint8, and a seed that decides everything; returns float32
    (3, h, w), normalised, and int64 (h, w) at the crop's size. What lies outside of the image is IGNORE_LABEL.
    """

    def __init__(self, *, base: Size, crop: Resolution, scales: Sequence[float] = (1.0,), jitter: float = 0.0) -> None:
        self.sizes = [(round(base[0] * scale), round(base[1] * scale)) for scale in scales]
        fill = {tv_tensors.Image: _MEAN_COLOUR, tv_tensors.Mask: IGNORE_LABEL}
        self.augment = v2.Compose(
            [
                v2.RandomCrop((crop.height, crop.width), pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter),
            ]
        )

    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with _seeded(seed):
            size = self.sizes[int(torch.randint(len(self.sizes), ()))]
            image, mask = resize(image, mask, size)
            image, mask = self.augment(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return _to_network(image, mask)


class EvaluationTransform:
    """The whole image and its mask at one resolution, normalised: float32 (3, h, w) and int64 (h, w)."""

    def __init__(self, resolution: Resolution) -> None:
        self.size = (resolution.height, resolution.width)

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return _to_network(*resize(image, mask, self.size))


def denormalise(images: Tensor) -> Tensor:
    """Normalised images (..., 3, h, w) as uint8 pixels again, for pictures."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _to_network(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    pixels = image.as_subclass(Tensor).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std, mask.as_subclass(Tensor).long()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's CPU generator, which torchvision draws from, and puts its state back; no device is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
