"""A data set by its name."""

from pathlib import Path

from fasterseg_core.config import DatasetName
from fasterseg_core.datasets.bdd import bdd100k
from fasterseg_core.datasets.camvid import camvid, camvid_720
from fasterseg_core.datasets.cityscapes import cityscapes
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.street_scenes import street_scenes


def open_dataset(name: DatasetName, root: Path, split: str) -> SegmentationData:
    """One split of a data set, "train" or "val", whose files lie below `root`; street scenes need no files.

    Raises:
        DatasetError: the files are not there, or not in the layout of this data set.
    """
    match name:
        case DatasetName.STREET_SCENES:
            return street_scenes(split)
        case DatasetName.CAMVID:
            return camvid(root, split)
        case DatasetName.CAMVID_720:
            return camvid_720(root, split)
        case DatasetName.CITYSCAPES:
            return cityscapes(root, split)
        case DatasetName.BDD100K:
            return bdd100k(root, split)
