"""CamVid with SegNet's 11 classes: SegNet's 360x480 layout and the original 720x960 one (Brostow et al., 2009)."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.segmentation import (
    Colour,
    DatasetError,
    LabelledImages,
    Labels,
    find_images,
    pair_up,
    read_ids,
    read_image,
)

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
COLOURS: tuple[Colour, ...] = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip

_SEGNET_VOID = len(CLASSES)
_SEGNET_IDS = {**{i: i for i in range(len(CLASSES))}, _SEGNET_VOID: IGNORE_LABEL}

# The 32 colours of the original labels, grouped as in SegNet (Badrinarayanan et al., 2017).
_ORIGINAL_COLOURS: dict[Colour, int] = {
    (128, 128, 128): 0,  # Sky
    (128, 0, 0): 1,  # Building
    (64, 192, 0): 1,  # Wall
    (0, 128, 64): 1,  # Bridge
    (64, 0, 64): 1,  # Tunnel
    (192, 0, 128): 1,  # Archway
    (192, 192, 128): 2,  # Column_Pole
    (0, 0, 64): 2,  # TrafficCone
    (128, 64, 128): 3,  # Road
    (128, 0, 192): 3,  # LaneMkgsDriv
    (192, 0, 64): 3,  # LaneMkgsNonDriv
    (0, 0, 192): 4,  # Sidewalk
    (64, 192, 128): 4,  # ParkingBlock
    (128, 128, 192): 4,  # RoadShoulder
    (128, 128, 0): 5,  # Tree
    (192, 192, 0): 5,  # VegetationMisc
    (192, 128, 128): 6,  # SignSymbol
    (128, 128, 64): 6,  # Misc_Text
    (0, 64, 64): 6,  # TrafficLight
    (64, 64, 128): 7,  # Fence
    (64, 0, 128): 8,  # Car
    (64, 128, 192): 8,  # SUVPickupTruck
    (192, 128, 192): 8,  # Truck_Bus
    (192, 64, 128): 8,  # Train
    (128, 64, 64): 8,  # OtherMoving
    (64, 64, 0): 9,  # Pedestrian
    (192, 128, 64): 9,  # Child
    (64, 0, 192): 9,  # CartLuggagePram
    (64, 128, 64): 9,  # Animal
    (0, 128, 192): 10,  # Bicyclist
    (192, 0, 192): 10,  # MotorcycleScooter
    (0, 0, 0): IGNORE_LABEL,  # Void
}


def camvid(root: Path, split: str) -> LabelledImages:
    """One split of SegNet's layout: images in <split>/, labels 0-10 and 11 for void in <split>annot/."""
    labels = root / f"{split}annot"
    return LabelledImages(
        classes=CLASSES,
        colours=COLOURS,
        pairs=pair_up(find_images(root / split, "*.png"), lambda image: labels / image.name),
        read_label=partial(read_ids, class_of=_SEGNET_IDS),
    )


def camvid_720(root: Path, split: str) -> LabelledImages:
    """One split of the original release: 701_StillsRaw_full/<name>.png and LabeledApproved_full/<name>_L.png.

    The names of a split stand in <split>.txt in the root, one a line, with or without a folder and an ending.
    """
    names_path = root / f"{split}.txt"
    if not names_path.is_file():
        raise DatasetError(f"{names_path} is missing: write the names of the split's images there, one a line")
    names = [Path(line.split()[0]).stem for line in names_path.read_text().splitlines() if line.strip()]
    if not names:
        raise DatasetError(f"{names_path} is empty: write the names of the split's images there, one a line")
    images, labels = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    return LabelledImages(
        classes=CLASSES,
        colours=COLOURS,
        pairs=pair_up((images / f"{name}.png" for name in names), lambda image: labels / f"{image.stem}_L.png"),
        read_label=read_colours,
    )


def read_colours(path: Path) -> Labels:
    """The labels of a colour-coded file, (H, W); DatasetError where a colour is none of the 32."""
    pixels = read_image(path)
    codes = _codes(pixels)
    nearest = np.searchsorted(_KNOWN_CODES, codes).clip(max=len(_KNOWN_CODES) - 1)
    unknown = _KNOWN_CODES[nearest] != codes
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise DatasetError(
            f"{path} has colour {tuple(pixels[row, column].tolist())} at row {row}, column {column}, none of CamVid's "
            "32: use the original label files, not resized or recompressed ones"
        )
    labels: Labels = _CLASS_OF_CODE[nearest]
    return labels


def _codes(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (..., 3) as one integer each."""
    return colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


_SORTED = sorted(_ORIGINAL_COLOURS)  # as their codes are
_KNOWN_CODES = _codes(np.array(_SORTED, np.uint8))
_CLASS_OF_CODE = np.array([_ORIGINAL_COLOURS[colour] for colour in _SORTED], np.uint8)
