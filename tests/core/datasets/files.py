"""Image and label files of the data sets' layouts, and a data set of tensors."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fasterseg_core.datasets.segmentation import Colour

HEIGHT, WIDTH = 6, 8


def write_image(path: Path, *, height: int = HEIGHT, width: int = WIDTH, colour: Colour = (10, 20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


def write_ids(path: Path, ids: list[int], *, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A one-channel label file whose first pixels are `ids`, the others the last of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(height * width, ids[-1], np.uint8)
    pixels[: len(ids)] = ids
    Image.fromarray(pixels.reshape(height, width)).save(path)
    return path


def write_colours(path: Path, colours: list[Colour], *, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """An RGB label file whose first pixels have `colours`, the others black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height * width, 3), np.uint8)
    pixels[: len(colours)] = colours
    Image.fromarray(pixels.reshape(height, width, 3)).save(path)
    return path


@dataclass(frozen=True)
class Numbered:
    """Samples whose image and mask are filled with their own index."""

    num_images: int
    height: int = 64
    width: int = 64
    classes: tuple[str, ...] = ("a", "b")
    colours: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))

    def __len__(self) -> int:
        return self.num_images

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = (self.height, self.width)
        return torch.full((3, *size), index, dtype=torch.uint8), torch.full(size, index, dtype=torch.uint8)
