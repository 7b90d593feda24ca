import pytest

from fasterseg_core.datasets.splits import random_split


def test_the_parts_are_disjoint_and_complete():
    split = random_split(367, holdout_share=0.1, max_holdout=64, seed=0)

    assert sorted(split.train_a + split.train_b + split.holdout) == list(range(367))
    assert (len(split.train_a), len(split.train_b), len(split.holdout)) == (165, 165, 37)


def test_the_holdout_has_a_maximum():
    split = random_split(2975, holdout_share=0.1, max_holdout=64, seed=0)

    assert len(split.holdout) == 64
    assert abs(len(split.train_a) - len(split.train_b)) <= 1


def test_a_seed_gives_the_same_split_again():
    first, again = (random_split(50, holdout_share=0.2, max_holdout=64, seed=3) for _ in range(2))

    assert first == again
    assert first.digest == again.digest


def test_another_seed_gives_another_split():
    first, other = (random_split(50, holdout_share=0.2, max_holdout=64, seed=seed) for seed in (3, 4))

    assert first.digest != other.digest


def test_training_is_all_but_the_holdout():
    split = random_split(50, holdout_share=0.2, max_holdout=64, seed=3)

    assert set(split.training) == set(range(50)) - set(split.holdout)


def test_the_smallest_set_has_an_image_in_each_part():
    split = random_split(3, holdout_share=0.1, max_holdout=64, seed=0)

    assert [len(part) for part in (split.train_a, split.train_b, split.holdout)] == [1, 1, 1]


@pytest.mark.parametrize(("num_images", "share"), [(0, 0.1), (2, 0.1), (10, 0.95)])
def test_too_few_images_are_refused(num_images, share):
    with pytest.raises(ValueError, match=f"{num_images} training images"):
        random_split(num_images, holdout_share=share, max_holdout=64, seed=0)


def test_a_state_of_another_split_is_refused():
    split, other = (random_split(50, holdout_share=0.2, max_holdout=64, seed=seed) for seed in (3, 4))

    split.require(split.digest)

    with pytest.raises(ValueError, match="another split of the training images"):
        split.require(other.digest)
