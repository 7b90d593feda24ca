import pytest
import torch

from fasterseg_core.datasets.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvaluationTransform,
    TrainingTransform,
    denormalise,
    resize,
    scaled_size,
)
from fasterseg_core.search_space import Resolution

CROP = Resolution(height=64, width=80)


def blocks(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose values say the label of each pixel: 20 times the label."""
    rows, columns = torch.meshgrid(torch.arange(height) // 5, torch.arange(width) // 7, indexing="ij")
    mask = ((3 * rows + columns) % 11).to(torch.uint8)
    return (20 * mask).expand(3, -1, -1).contiguous(), mask


def ramp(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and a mask whose values both say the column."""
    columns = torch.arange(width, dtype=torch.uint8).expand(height, width).contiguous()
    return columns.expand(3, -1, -1).contiguous(), columns


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_are_cropped_and_flipped_alike(seed):
    transform = TrainingTransform(base=(100, 120), crop=CROP)

    image, mask = transform(*blocks(100, 120), seed)

    assert image.shape == (3, 64, 80)
    assert mask.shape == (64, 80)
    assert torch.equal(denormalise(image)[0].long(), 20 * mask)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25])
@pytest.mark.parametrize("seed", range(3))
def test_image_and_mask_are_scaled_alike(scale, seed):
    transform = TrainingTransform(base=(200, 240), crop=CROP, scales=(scale,))

    image, mask = transform(*ramp(200, 240), seed)

    difference = denormalise(image)[0].float() - mask
    assert difference.abs().max() <= 2
    assert difference.mean().abs() < 0.6


def test_seeds_reach_flips_positions_and_scales():
    transform = TrainingTransform(base=(100, 120), crop=CROP, scales=(0.75, 1.0, 1.25))

    masks = {transform(*blocks(100, 120), seed)[1].numpy().tobytes() for seed in range(12)}

    assert len(masks) == 12


def test_the_seed_decides_everything():
    transform = TrainingTransform(base=(100, 120), crop=CROP, scales=(0.75, 1.25), jitter=0.3)

    first, again = transform(*blocks(90, 130), 5), transform(*blocks(90, 130), 5)

    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    before = torch.get_rng_state()

    TrainingTransform(base=(100, 120), crop=CROP, jitter=0.3)(*blocks(100, 120), 5)

    assert torch.equal(torch.get_rng_state(), before)


def test_what_lies_outside_of_a_small_image_is_ignored():
    transform = TrainingTransform(base=(40, 50), crop=CROP)

    image, mask = transform(*blocks(40, 50), 0)

    outside = mask == 255
    assert (~outside).sum() == 40 * 50
    assert image[:, outside].abs().max() < 0.02


def test_jitter_changes_colours_but_no_labels():
    plain, jittered = (TrainingTransform(base=(100, 120), crop=CROP, jitter=jitter) for jitter in (0.0, 0.4))

    image, mask = plain(*blocks(100, 120), 2)
    other_image, other_mask = jittered(*blocks(100, 120), 2)

    assert torch.equal(mask, other_mask)
    assert not torch.equal(image, other_image)


@pytest.mark.parametrize("size", [(33, 47), (100, 120), (151, 240)])
def test_a_resized_mask_has_no_new_labels(size):
    image, mask = blocks(100, 120)
    mask = torch.where(mask > 5, 255, 3).to(torch.uint8)

    resized_image, resized_mask = resize(image, mask, size)

    assert resized_image.shape == (3, *size)
    assert resized_mask.shape == size
    assert set(resized_mask.unique().tolist()) == {3, 255}


def test_evaluation_shows_the_whole_image_at_the_resolution():
    transform = EvaluationTransform(Resolution(height=72, width=96))

    image, mask = transform(*blocks(100, 120))

    assert image.shape == (3, 72, 96)
    assert image.dtype == torch.float32
    assert mask.shape == (72, 96)
    assert mask.dtype == torch.int64


def test_evaluation_at_the_images_own_size_only_normalises():
    image, mask = blocks(100, 120)

    normalised, labels = EvaluationTransform(Resolution(height=100, width=120))(image, mask)

    assert torch.equal(labels, mask.long())
    expected = (image[1, 50, 60] / 255 - IMAGENET_MEAN[1]) / IMAGENET_STD[1]
    assert normalised[1, 50, 60] == pytest.approx(expected.item(), abs=1e-6)


def test_denormalise_returns_the_pixels():
    image, mask = blocks(100, 120)

    normalised, _ = EvaluationTransform(Resolution(height=100, width=120))(image, mask)

    assert torch.equal(denormalise(normalised), image)


def test_scaled_size_is_rounded():
    assert scaled_size(Resolution(height=360, width=480), 0.5) == (180, 240)
    assert scaled_size(Resolution(height=101, width=480), 0.75) == (76, 360)
