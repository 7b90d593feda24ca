import pytest
import torch

from fasterseg_core.datasets.cityscapes import CLASSES, cityscapes
from fasterseg_core.datasets.segmentation import DatasetError
from tests.core.datasets.files import write_ids, write_image

NAME = "aachen/aachen_000000_000019"


def test_train_ids_are_read_as_they_are(tmp_path):
    write_image(tmp_path / f"leftImg8bit/train/{NAME}_leftImg8bit.png", colour=(1, 2, 3))
    write_ids(tmp_path / f"gtFine/train/{NAME}_gtFine_labelTrainIds.png", [0, 18, 255])

    image, mask = cityscapes(tmp_path, "train").sample(0)

    assert image.dtype == mask.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == [1, 2, 3]
    assert image.shape == (3, 6, 8)
    assert mask.flatten()[:4].tolist() == [0, 18, 255, 255]


def test_label_ids_are_converted_where_train_ids_are_missing(tmp_path):
    write_image(tmp_path / f"leftImg8bit/val/{NAME}_leftImg8bit.png")
    write_ids(tmp_path / f"gtFine/val/{NAME}_gtFine_labelIds.png", [7, 8, 11, 26, 33, 0, 9, 30])

    _, mask = cityscapes(tmp_path, "val").sample(0)

    assert [CLASSES[i] for i in mask.flatten()[:5]] == ["road", "sidewalk", "building", "car", "bicycle"]
    assert mask.flatten()[5:8].tolist() == [255, 255, 255]


def test_images_of_all_cities_are_found_in_order(tmp_path):
    for name in ("ulm/ulm_000001_000019", NAME):
        write_image(tmp_path / f"leftImg8bit/train/{name}_leftImg8bit.png")
        write_ids(tmp_path / f"gtFine/train/{name}_gtFine_labelTrainIds.png", [0])

    data = cityscapes(tmp_path, "train")

    assert [image.parent.name for image, _ in data.pairs] == ["aachen", "ulm"]
    assert len(data) == 2
    assert len(data.classes) == len(data.colours) == 19


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="leftImg8bit/train is missing: put the data set there"):
        cityscapes(tmp_path, "train")


def test_an_image_without_label_is_named(tmp_path):
    write_image(tmp_path / f"leftImg8bit/train/{NAME}_leftImg8bit.png")

    with pytest.raises(DatasetError, match=r"aachen_000000_000019_gtFine_labelIds.png is missing, unpack the labels"):
        cityscapes(tmp_path, "train")


def test_a_label_out_of_range_is_named(tmp_path):
    write_image(tmp_path / f"leftImg8bit/train/{NAME}_leftImg8bit.png")
    write_ids(tmp_path / f"gtFine/train/{NAME}_gtFine_labelTrainIds.png", [0, 19])

    with pytest.raises(DatasetError, match=r"labelTrainIds.png has label 19 at row 0, column 1; .* has 0-18, 255"):
        cityscapes(tmp_path, "train").sample(0)


def test_a_label_of_another_size_is_named(tmp_path):
    write_image(tmp_path / f"leftImg8bit/train/{NAME}_leftImg8bit.png")
    write_ids(tmp_path / f"gtFine/train/{NAME}_gtFine_labelTrainIds.png", [0], height=3)

    with pytest.raises(DatasetError, match=r"is 3x8 but its image .* is 6x8"):
        cityscapes(tmp_path, "train").sample(0)


def test_a_colour_file_in_place_of_labels_is_refused(tmp_path):
    write_image(tmp_path / f"leftImg8bit/train/{NAME}_leftImg8bit.png")
    write_image(tmp_path / f"gtFine/train/{NAME}_gtFine_labelTrainIds.png")

    with pytest.raises(DatasetError, match="mode RGB; a label file has one channel"):
        cityscapes(tmp_path, "train").sample(0)


def test_the_test_split_has_no_labels(tmp_path):
    with pytest.raises(DatasetError, match="not 'test'"):
        cityscapes(tmp_path, "test")
