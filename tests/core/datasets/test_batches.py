import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import pytest
import torch

from fasterseg_core.datasets.batches import Batch, batches, evaluation_batches, in_memory
from fasterseg_core.datasets.street_scenes import street_scenes
from fasterseg_core.datasets.transforms import EvaluationTransform, TrainingTransform
from fasterseg_core.search_space import Resolution
from tests.core.datasets.files import Numbered

CROP = Resolution(height=64, width=64)
PLAIN = TrainingTransform(base=(64, 64), crop=CROP)


def some_batches(num_workers: int = 1, **changes: int | None) -> Iterator[Batch]:
    scenes = street_scenes("train", num_images=7, resolution=Resolution(height=80, width=100))
    transform = TrainingTransform(base=(80, 100), crop=CROP, scales=(0.8, 1.2))
    options = {"batch_size": 2, "seed": 1, "epoch": 0} | changes
    return batches(scenes, range(7), transform, num_workers=num_workers, **options)


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def numbers(found: Iterator[Batch]) -> list[list[int]]:
    """The indices of the samples of each batch."""
    return [labels[:, 0, 0].tolist() for _, labels in found]


def test_a_batch_has_images_and_labels():
    images, labels = next(some_batches())

    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == torch.float32
    assert labels.shape == (2, 64, 64)
    assert labels.dtype == torch.int64


def test_a_pass_shows_each_index_once_and_drops_the_rest():
    found = numbers(batches(Numbered(20), range(3, 14), PLAIN, batch_size=4, seed=0, epoch=0))

    shown = [index for batch in found for index in batch]
    assert [len(batch) for batch in found] == [4, 4]
    assert len(set(shown)) == 8
    assert set(shown) <= set(range(3, 14))
    assert shown != sorted(shown)


def test_epochs_and_seeds_shuffle_differently():
    orders = [
        numbers(batches(Numbered(20), range(20), PLAIN, batch_size=5, seed=seed, epoch=epoch))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]

    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert orders[1] != orders[2]


def test_steps_beyond_a_pass_go_on_with_a_fresh_permutation():
    found = numbers(batches(Numbered(8), range(8), PLAIN, batch_size=4, seed=0, epoch=0, steps=5))

    first, second = found[0] + found[1], found[2] + found[3]
    assert len(found) == 5
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


@pytest.mark.parametrize("start_step", [1, 3, 6])
def test_an_epoch_resumes_at_any_step(start_step):
    whole = list(some_batches(steps=7))

    resumed = list(some_batches(steps=7, start_step=start_step))

    assert same(resumed, whole[start_step:])


def test_an_epoch_that_was_finished_has_nothing_left():
    assert list(some_batches(steps=7, start_step=7)) == []


def test_workers_change_nothing():
    assert same(list(some_batches(num_workers=3, steps=4)), list(some_batches(steps=4)))


@dataclass(frozen=True)
class Watched(Numbered):
    """Says when the sample of an index is asked for."""

    asked: dict[int, threading.Event] = field(default_factory=lambda: {i: threading.Event() for i in range(20)})

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked[index].set()
        return super().sample(index)


def test_batches_are_prepared_while_the_caller_works():
    data = Watched(20)
    found = evaluation_batches(data, range(10), EvaluationTransform(CROP), batch_size=1)

    next(found)

    assert data.asked[1].wait(60)
    assert data.asked[2].wait(60)
    found.close()
    assert not data.asked[4].is_set()


def test_an_image_that_cannot_be_read_is_told_to_the_caller():
    found = evaluation_batches(Numbered(20), [0, 300], EvaluationTransform(CROP), batch_size=1)

    next(found)

    with pytest.raises(RuntimeError, match="overflow"):
        next(found)


def test_nothing_runs_on_once_a_caller_has_stopped():
    before = threading.active_count()
    found = some_batches(num_workers=2)
    next(found)
    assert threading.active_count() > before

    found.close()

    assert threading.active_count() == before


def test_the_global_generator_plays_no_part():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = list(islice(some_batches(), 2))
    assert torch.equal(torch.get_rng_state(), state)

    torch.manual_seed(1)
    assert same(list(islice(some_batches(), 2)), first)


def test_the_same_image_is_augmented_anew_in_each_pass():
    scenes = street_scenes("train", num_images=1, resolution=Resolution(height=120, width=160))
    transform = TrainingTransform(base=(120, 160), crop=CROP)

    first, second = batches(scenes, [0], transform, batch_size=1, seed=0, epoch=0, steps=2)

    assert not torch.equal(first[0], second[0])


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="3 images are fewer than one batch of 4"):
        batches(Numbered(20), range(3), PLAIN, batch_size=4, seed=0, epoch=0)


def test_evaluation_shows_every_image_once_in_order():
    found = list(evaluation_batches(Numbered(20), [5, 1, 7, 2, 9], EvaluationTransform(CROP), batch_size=2))

    assert numbers(iter(found)) == [[5, 1], [7, 2], [9]]
    assert found[0][0].shape == (2, 3, 64, 64)


def test_a_data_set_in_memory_has_the_same_samples():
    scenes = street_scenes("val", num_images=3, resolution=Resolution(height=80, width=100))

    held = in_memory(scenes, (80, 100))

    assert len(held) == 3
    assert held.classes == scenes.classes
    assert torch.equal(held.sample(2)[0], scenes.sample(2)[0])
    assert torch.equal(held.sample(2)[1], scenes.sample(2)[1])


def test_a_data_set_in_memory_is_resized_once():
    scenes = street_scenes("val", num_images=2, resolution=Resolution(height=80, width=100))
    transform = TrainingTransform(base=(64, 80), crop=CROP)

    held = in_memory(scenes, (64, 80))

    assert held.sample(0)[0].shape == (3, 64, 80)
    assert torch.equal(transform(*held.sample(1), 4)[0], transform(*scenes.sample(1), 4)[0])
