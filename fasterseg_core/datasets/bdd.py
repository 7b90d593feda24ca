"""BDD100K's 10k images with semantic segmentation, Cityscapes' 19 classes (Yu et al., 2020)."""

from functools import partial
from pathlib import Path

from fasterseg_core.datasets import cityscapes
from fasterseg_core.datasets.segmentation import (
    DatasetError,
    LabelledImages,
    find_images,
    pair_up,
    read_ids,
    train_ids,
)


def bdd100k(root: Path, split: str) -> LabelledImages:
    """One split of images/10k/ and labels/sem_seg/masks/, or of the first release, seg/images/ and seg/labels/.

    Raises:
        DatasetError: a folder, image or label is missing, or the split has no public labels.
    """
    if split not in ("train", "val"):
        raise DatasetError(f"BDD100K has labels for the splits train and val, not {split!r}")
    if (root / "seg").is_dir():
        images, labels, suffix = root / "seg" / "images" / split, root / "seg" / "labels" / split, "_train_id.png"
    else:
        images, labels, suffix = root / "images" / "10k" / split, root / "labels/sem_seg/masks" / split, ".png"
    return LabelledImages(
        classes=cityscapes.CLASSES,
        colours=cityscapes.COLOURS,
        pairs=pair_up(find_images(images, "*.jpg"), lambda image: labels / f"{image.stem}{suffix}"),
        read_label=partial(read_ids, class_of=train_ids(len(cityscapes.CLASSES))),
    )
