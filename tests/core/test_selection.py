import pytest
import torch

from fasterseg_core.config import Role
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.splits import Split
from fasterseg_core.derive import derive
from fasterseg_core.evaluation import evaluate, evaluate_each
from fasterseg_core.latency_table import estimate
from fasterseg_core.relaxation import most_probable_widths
from fasterseg_core.search_space import BRANCH_PAIRS
from fasterseg_core.selection import Selection, ValidationImages, best, candidates, candidates_and_heads
from fasterseg_core.subnetwork import recalibrate, subnetwork
from tests.builders import ColourBlocks, a_latency_table, a_relaxation, a_search_config, a_search_space

CPU = torch.device("cpu")
SPACE = a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=1)
TABLE = a_latency_table(SPACE)
SPLIT = Split(train_a=(0, 2, 4), train_b=(1, 3), holdout=(5, 6, 7))


class Counted:
    """Images that remember how often each was read."""

    def __init__(self):
        self.data, self.read = ColourBlocks(num_images=8), []
        self.classes, self.colours = self.data.classes, self.data.colours

    def __len__(self):
        return len(self.data)

    def sample(self, index):
        self.read.append(index)
        return self.data.sample(index)


@pytest.fixture(scope="module")
def models():
    """Random weights, and a student with random scalars."""
    models = CoSearch(a_search_config(space=SPACE), TABLE, CPU)
    for role in Role:
        models.relaxations[role].load_state_dict(a_relaxation(SPACE, role).state_dict())
    return models


def images(data=None, **limits):
    return ValidationImages(data or ColourBlocks(num_images=8), SPLIT, a_search_config(space=SPACE), CPU, **limits)


def test_every_pair_is_scored_as_if_it_were_alone(models):
    found = candidates(models, Role.STUDENT, TABLE, images())

    for selection, pair in zip(found, BRANCH_PAIRS, strict=True):
        derivation = derive(models.relaxations[Role.STUDENT], pair)
        network = subnetwork(models.supernet, Role.STUDENT, derivation)
        recalibrate(network, images().calibration())
        assert selection == Selection(
            derivation,
            evaluate(network, images().holdout(), 3).miou,
            estimate(derivation.architecture, TABLE).milliseconds,
        )


def test_heads_are_scored_in_the_same_pass_as_if_they_were_alone(models):
    student = models.relaxations[Role.STUDENT]
    found, heads = candidates_and_heads(models, TABLE, images())

    def predict(batch):
        return models.supernet(batch, Role.STUDENT, student.probabilities(), most_probable_widths(student))

    models.supernet.eval()
    alone = evaluate_each(predict, images().holdout(), 3)
    models.supernet.train()
    assert heads == {"+".join(map(str, rates)): score.miou for rates, score in alone.items()}
    assert set(heads) == {"8", "16", "32", "8+16", "8+32", "16+32"}
    assert found == candidates(models, Role.STUDENT, TABLE, images())


def test_a_validation_leaves_the_supernet_as_it_was(models):
    before = {name: value.clone() for name, value in models.supernet.state_dict().items()}

    candidates_and_heads(models, TABLE, images())

    assert all(torch.equal(value, before[name]) for name, value in models.supernet.state_dict().items())
    assert models.supernet.training
    assert all(p.grad is None for p in models.supernet.parameters())


def test_every_image_is_decoded_once_for_all_validations(models):
    data = Counted()
    kept = images(data)

    candidates_and_heads(models, TABLE, kept)
    candidates(models, Role.TEACHER, TABLE, kept)

    assert sorted(data.read) == sorted(SPLIT.train_a + SPLIT.holdout)


def test_images_that_do_not_fit_into_memory_are_read_once_a_validation(models):
    data = Counted()
    large = images(data, in_memory_bytes=1000)

    for _ in range(2):
        candidates_and_heads(models, TABLE, large)

    assert sorted(data.read) == sorted(2 * (SPLIT.train_a + SPLIT.holdout))


def a_selection(models, miou, latency_ms):
    return Selection(derive(models.relaxations[Role.STUDENT], (8, 16)), miou, latency_ms)


@pytest.mark.parametrize(
    ("target_ms", "expected"),
    [
        (None, 2),  # by eq. 5, the best
        (10.0, 1),  # the best of those within 5 % of the target
        (40.0, 3),  # none is: the nearest
    ],
)
def test_a_target_comes_before_accuracy(models, target_ms, expected):
    selections = [a_selection(models, *one) for one in ((0.3, 10.0), (0.4, 9.6), (0.6, 12.0), (0.5, 20.0))]

    assert best(selections, -0.07, target_ms) == selections[expected]
