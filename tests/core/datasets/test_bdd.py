import pytest

from fasterseg_core.datasets.bdd import bdd100k
from fasterseg_core.datasets.segmentation import DatasetError
from tests.core.datasets.files import write_ids, write_image


def test_images_pair_with_their_masks(tmp_path):
    write_image(tmp_path / "images/10k/val/7d2f7975-e0c1c5a7.jpg")
    write_ids(tmp_path / "labels/sem_seg/masks/val/7d2f7975-e0c1c5a7.png", [0, 18, 255])

    data = bdd100k(tmp_path, "val")
    image, mask = data.sample(0)

    assert len(data.classes) == 19
    assert image.shape == (3, 6, 8)
    assert mask.flatten()[:3].tolist() == [0, 18, 255]


def test_the_first_release_is_read_too(tmp_path):
    write_image(tmp_path / "seg/images/train/0a0a0b1a-7c39d841.jpg")
    write_ids(tmp_path / "seg/labels/train/0a0a0b1a-7c39d841_train_id.png", [5])

    _, mask = bdd100k(tmp_path, "train").sample(0)

    assert mask.unique().tolist() == [5]


def test_an_image_without_mask_is_named(tmp_path):
    write_image(tmp_path / "images/10k/train/0a0a0b1a-7c39d841.jpg")

    with pytest.raises(DatasetError, match=r"0a0a0b1a-7c39d841.jpg has no label: .*masks/train/0a0a0b1a"):
        bdd100k(tmp_path, "train")


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "images/10k/train").mkdir(parents=True)

    with pytest.raises(DatasetError, match=r"images/10k/train has no \*.jpg: unpack"):
        bdd100k(tmp_path, "train")


def test_the_test_split_has_no_labels(tmp_path):
    with pytest.raises(DatasetError, match="not 'test'"):
        bdd100k(tmp_path, "test")
