import numpy as np
import pytest
import torch
from PIL import Image

from fasterseg_core.datasets.perspective import Camera, Canvas
from fasterseg_core.datasets.segmentation import DatasetError
from fasterseg_core.datasets.street_scenes import street_scenes
from fasterseg_core.search_space import Resolution


def test_a_scene_follows_from_seed_split_and_index():
    first, again = street_scenes("train").sample(7), street_scenes("train").sample(7)

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize(
    ("split", "seed", "index"), [("val", 0, 7), ("train", 1, 7), ("train", 0, 8)], ids=["split", "seed", "index"]
)
def test_a_scene_changes_with(split, seed, index):
    reference, _ = street_scenes("train").sample(7)

    image, _ = street_scenes(split, seed=seed).sample(index)

    assert not torch.equal(image, reference)


def test_sizes_are_the_defaults_of_a_small_data_set():
    assert (len(street_scenes("train")), len(street_scenes("val"))) == (200, 50)
    assert street_scenes("val").sample(0)[0].shape == (3, 360, 480)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 256), (257, 131)])
def test_scenes_of_any_size(height, width):
    image, mask = street_scenes("train", resolution=Resolution(height=height, width=width)).sample(0)

    assert image.shape == (3, height, width)
    assert mask.shape == (height, width)
    assert image.dtype == mask.dtype == torch.uint8


def test_all_classes_appear_in_a_few_scenes():
    scenes = street_scenes("train", num_images=12)

    labels = torch.cat([scenes.sample(i)[1].flatten() for i in range(len(scenes))])

    assert set(labels.tolist()) >= set(range(11))
    assert set(labels.tolist()) <= {*range(11), 255}


def test_every_scene_has_sky_above_a_road():
    scenes = street_scenes("train", num_images=12, resolution=Resolution(height=180, width=240))

    masks = [scenes.sample(i)[1] for i in range(len(scenes))]

    assert all((mask[-1] == 3).float().mean() > 0.3 for mask in masks)
    assert all(not (mask[-1] == 0).any() for mask in masks)


def test_an_index_beyond_the_end_is_refused():
    with pytest.raises(IndexError):
        street_scenes("train", num_images=2).sample(2)


def test_an_unknown_split_is_refused():
    with pytest.raises(DatasetError, match="not 'test'"):
        street_scenes("test")


def test_every_shape_covers_the_same_pixels_of_image_and_mask():
    image, mask = Image.new("RGB", (120, 90)), Image.new("L", (120, 90))
    camera = Camera(focal=90.0, horizon=40.3, vanishing=61.7, height=1.5, x=-0.3)
    canvas = Canvas(image, mask, camera, haze=(0, 0, 0), haze_length=float("inf"))

    canvas.polygon([(-3, 0, 3.1), (3, 0, 3.1), (1, 2, 14), (-1, 0.3, 9)], (10, 0, 0), 10)
    canvas.upright(-2.2, -0.7, 0, 2.3, 6.4, (20, 0, 0), 20)
    canvas.disc((0.4, 1.1, 5.5), 1.3, 0.7, (30, 0, 0), 30)
    canvas.ring((0.9, 0.6, 5.0), 1.1, 0.09, (40, 0, 0), 40)
    canvas.line([(-2, 0.1, 4), (1, 2.2, 7), (2, 0.4, 5)], 0.13, (50, 0, 0), 50)

    assert np.array_equal(np.array(image)[..., 0], np.array(mask))
    assert set(np.unique(mask)) == {0, 10, 20, 30, 40, 50}


def test_a_detail_leaves_the_mask_as_it_is():
    image, mask = Image.new("RGB", (40, 40)), Image.new("L", (40, 40))
    camera = Camera(focal=30.0, horizon=20.0, vanishing=20.0, height=1.5, x=0.0)
    canvas = Canvas(image, mask, camera, haze=(0, 0, 0), haze_length=100.0)

    canvas.upright(-1, 1, 0, 2, 4, (200, 100, 50))

    assert np.array(image).any()
    assert not np.array(mask).any()


def test_half_of_the_colour_is_left_at_the_haze_length():
    image, mask = Image.new("RGB", (40, 40)), Image.new("L", (40, 40))
    camera = Camera(focal=400.0, horizon=20.0, vanishing=20.0, height=1.5, x=0.0)
    canvas = Canvas(image, mask, camera, haze=(200, 200, 200), haze_length=50.0)

    canvas.upright(-3, 3, 0, 3, 50, (100, 0, 50), 1)

    assert image.getpixel((20, 20)) == (150, 100, 125)
