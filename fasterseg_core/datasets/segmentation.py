"""Images with a class label for every pixel: what a data set offers, and the one that reads pairs of files."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fasterseg_core.config import IGNORE_LABEL

Colour = tuple[int, int, int]
Labels = NDArray[np.uint8]  # (H, W), class ids and IGNORE_LABEL


class DatasetError(ValueError):
    """The files of a data set are not what its layout promises; the message names the file and the fix."""


class SegmentationData(Protocol):
    """A sequence of images with labels; `classes` and `colours` are in the order of the class ids."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def colours(self) -> tuple[Colour, ...]: ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 (3, H, W), and its mask, uint8 (H, W) with IGNORE_LABEL where nothing is labelled."""


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Pairs of an image file and a label file, decoded when asked for.

    Raises:
        DatasetError: (sample) a label file has another size than its image, or what `read_label` refuses.
    """

    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    pairs: tuple[tuple[Path, Path], ...]  # image, label
    read_label: Callable[[Path], Labels]

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, label_path = self.pairs[index]
        image = read_image(image_path)
        mask = self.read_label(label_path)
        if mask.shape != image.shape[:2]:
            raise DatasetError(
                f"{label_path} is {_size(mask)} but its image {image_path} is {_size(image)} (height x width): "
                "take both from the same release of the data set"
            )
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask)


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, RGB (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def read_ids(path: Path, class_of: dict[int, int]) -> Labels:
    """The labels of a one-channel file, each id replaced by its class.

    Raises:
        DatasetError: the file has colours instead of ids, or an id that `class_of` lacks.
    """
    with Image.open(path) as image:
        if image.mode not in ("L", "P"):
            raise DatasetError(f"{path} has mode {image.mode}; a label file has one channel of ids (mode L or P)")
        ids = np.array(image)
    table = np.full(256, -1, np.int16)
    table[list(class_of)] = list(class_of.values())
    classes = table[ids]
    if classes.min() < 0:
        row, column = np.argwhere(classes < 0)[0]
        raise DatasetError(
            f"{path} has label {ids[row, column]} at row {row}, column {column}; "
            f"this data set has {_ranges(class_of)}: use its own label files"
        )
    labels: Labels = classes.astype(np.uint8)
    return labels


def train_ids(num_classes: int) -> dict[int, int]:
    """Labels that are class ids already, and IGNORE_LABEL."""
    return {**{i: i for i in range(num_classes)}, IGNORE_LABEL: IGNORE_LABEL}


def find_images(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that match a pattern, sorted; DatasetError where there are none."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing: put the data set there or correct the data root")
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise DatasetError(f"{folder} has no {pattern}: unpack the images of this split there")
    return paths


def pair_up(images: Iterable[Path], label_of: Callable[[Path], Path]) -> tuple[tuple[Path, Path], ...]:
    """Each image with its label file; DatasetError where one of the two is missing."""
    pairs = tuple((image, label_of(image)) for image in images)
    for image, label in pairs:
        if not image.is_file():
            raise DatasetError(f"{image} is missing: unpack the images there")
        if not label.is_file():
            raise DatasetError(f"{image} has no label: {label} is missing, unpack the labels of this split there")
    return pairs


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"


def _ranges(ids: Iterable[int]) -> str:
    known = sorted(ids)
    starts = [i for i in known if i - 1 not in known]
    ends = [i for i in known if i + 1 not in known]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
