import pytest

from fasterseg_core.config import NUM_CLASSES, DatasetName
from fasterseg_core.datasets.catalog import open_dataset
from fasterseg_core.datasets.segmentation import DatasetError
from tests.core.datasets.files import write_colours, write_ids, write_image


@pytest.fixture
def root(tmp_path):
    write_image(tmp_path / "train/a.png")
    write_ids(tmp_path / "trainannot/a.png", [1])
    (tmp_path / "train.txt").write_text("a")
    write_image(tmp_path / "701_StillsRaw_full/a.png")
    write_colours(tmp_path / "LabeledApproved_full/a_L.png", [(128, 0, 0)])
    write_image(tmp_path / "leftImg8bit/train/ulm/a_leftImg8bit.png")
    write_ids(tmp_path / "gtFine/train/ulm/a_gtFine_labelTrainIds.png", [1])
    write_image(tmp_path / "images/10k/train/a.jpg")
    write_ids(tmp_path / "labels/sem_seg/masks/train/a.png", [1])
    return tmp_path


@pytest.mark.parametrize("name", DatasetName)
def test_every_data_set_opens_with_its_number_of_classes(root, name):
    data = open_dataset(name, root, "train")

    _, mask = data.sample(0)

    assert len(data.classes) == len(data.colours) == NUM_CLASSES[name]
    assert len(set(data.colours)) == NUM_CLASSES[name]
    assert 1 in mask


@pytest.mark.parametrize("name", DatasetName)
def test_a_split_that_does_not_exist_is_refused(root, name):
    with pytest.raises(DatasetError):
        open_dataset(name, root, "holdout")
