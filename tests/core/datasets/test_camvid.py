from pathlib import Path

import pytest

from fasterseg_core.datasets.camvid import CLASSES, camvid, camvid_720
from fasterseg_core.datasets.segmentation import DatasetError
from tests.core.datasets.files import write_colours, write_ids, write_image

REAL = Path(__file__).parents[4] / "shared" / "data" / "camvid"


def test_segnet_layout_keeps_the_ids_and_ignores_void(tmp_path):
    write_image(tmp_path / "train/0001TP_006690.png")
    write_ids(tmp_path / "trainannot/0001TP_006690.png", [0, 10, 11])

    _, mask = camvid(tmp_path, "train").sample(0)

    assert mask.flatten()[:3].tolist() == [0, 10, 255]


def test_segnet_label_out_of_range_is_named(tmp_path):
    write_image(tmp_path / "train/0001TP_006690.png")
    write_ids(tmp_path / "trainannot/0001TP_006690.png", [12])

    with pytest.raises(DatasetError, match=r"trainannot/0001TP_006690.png has label 12"):
        camvid(tmp_path, "train").sample(0)


def test_segnet_split_that_is_missing_is_named(tmp_path):
    with pytest.raises(DatasetError, match="test is missing"):
        camvid(tmp_path, "test")


@pytest.mark.parametrize("line", ["0001TP_006690", "0001TP_006690.png", "/CamVid/train/0001TP_006690.png a/b.png"])
def test_original_layout_takes_its_splits_from_lists(tmp_path, line):
    (tmp_path / "val.txt").write_text(f"{line}\n\n")
    write_image(tmp_path / "701_StillsRaw_full/0001TP_006690.png")
    write_image(tmp_path / "701_StillsRaw_full/of_another_split.png")
    write_colours(tmp_path / "LabeledApproved_full/0001TP_006690_L.png", [(128, 128, 128)])

    data = camvid_720(tmp_path, "val")

    assert [image.stem for image, _ in data.pairs] == ["0001TP_006690"]


def test_original_colours_are_grouped_into_segnet_classes(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    write_image(tmp_path / "701_StillsRaw_full/a.png")
    colours = [(128, 0, 192), (64, 192, 0), (192, 128, 192), (192, 128, 64), (192, 0, 192), (0, 64, 64), (0, 0, 0)]
    write_colours(tmp_path / "LabeledApproved_full/a_L.png", colours)

    _, mask = camvid_720(tmp_path, "train").sample(0)

    # lane marking, wall, bus, child, motorcycle, traffic light
    expected = ["road", "building", "car", "pedestrian", "bicyclist", "sign symbol"]
    assert [CLASSES[i] for i in mask.flatten()[:6]] == expected
    assert mask.flatten()[6] == 255


def test_every_class_has_its_own_colour_among_the_original_ones(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    write_image(tmp_path / "701_StillsRaw_full/a.png", height=1, width=11)
    data_colours = list(camvid_720(_with_label(tmp_path), "train").colours)
    write_colours(tmp_path / "LabeledApproved_full/a_L.png", data_colours, height=1, width=11)

    _, mask = camvid_720(tmp_path, "train").sample(0)

    assert mask.flatten().tolist() == list(range(11))


def test_an_unknown_colour_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    write_image(tmp_path / "701_StillsRaw_full/a.png")
    write_colours(tmp_path / "LabeledApproved_full/a_L.png", [(128, 128, 128), (1, 2, 3)])

    with pytest.raises(DatasetError, match=r"a_L.png has colour \(1, 2, 3\) at row 0, column 1"):
        camvid_720(tmp_path, "train").sample(0)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"train.txt is missing: write the names"):
        camvid_720(tmp_path, "train")


def test_an_empty_list_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("\n")

    with pytest.raises(DatasetError, match=r"train.txt is empty"):
        camvid_720(tmp_path, "train")


def test_an_image_of_the_list_that_is_missing_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")

    with pytest.raises(DatasetError, match=r"701_StillsRaw_full/a.png is missing"):
        camvid_720(tmp_path, "train")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no CamVid at {REAL}")
def test_the_real_camvid_is_complete():
    train, val = camvid(REAL, "train"), camvid(REAL, "val")

    image, mask = train.sample(100)

    assert (len(train), len(val)) == (367, 101)
    assert image.shape == (3, 360, 480)
    assert set(mask.unique().tolist()) <= {*range(11), 255}
    assert (mask == CLASSES.index("road")).float().mean() > 0.1


def _with_label(root: Path) -> Path:
    write_colours(root / "LabeledApproved_full/a_L.png", [(0, 0, 0)])
    return root
