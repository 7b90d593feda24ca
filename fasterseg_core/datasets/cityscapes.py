"""Cityscapes: 19 classes, fine annotations (Cordts et al., 2016)."""

from functools import partial
from pathlib import Path

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.segmentation import (
    Colour,
    DatasetError,
    LabelledImages,
    find_images,
    pair_up,
    read_ids,
    train_ids,
)

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
COLOURS: tuple[Colour, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

# The id of each class in *_labelIds.png (cityscapesscripts, helpers/labels.py); all others up to 33 are ignored.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_TRAIN_ID_OF = dict.fromkeys((*range(34), 255), IGNORE_LABEL) | {id_: i for i, id_ in enumerate(_LABEL_IDS)}


def cityscapes(root: Path, split: str) -> LabelledImages:
    """One split of leftImg8bit/ and gtFine/: from *_labelTrainIds.png, or else from *_labelIds.png, converted.

    Raises:
        DatasetError: a folder, image or label is missing, or the split has no public labels.
    """
    if split not in ("train", "val"):
        raise DatasetError(f"Cityscapes has labels for the splits train and val, not {split!r}")
    images = find_images(root / "leftImg8bit" / split, "*/*_leftImg8bit.png")
    labels = root / "gtFine" / split
    if any(labels.glob("*/*_gtFine_labelTrainIds.png")):
        kind, class_of = "labelTrainIds", train_ids(len(CLASSES))
    else:
        kind, class_of = "labelIds", _TRAIN_ID_OF

    def label_of(image: Path) -> Path:
        return labels / image.parent.name / image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")

    return LabelledImages(
        classes=CLASSES,
        colours=COLOURS,
        pairs=pair_up(images, label_of),
        read_label=partial(read_ids, class_of=class_of),
    )
