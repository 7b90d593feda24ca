from math import log

import pytest
import torch
import torch.nn.functional as F

from fasterseg_core.config import IGNORE_LABEL, Divergence, OhemConfig
from fasterseg_core.losses import distillation, downsampled_labels, ohem_cross_entropy, search_objective


def logits_and_labels(ignored=0.2, seed=0):
    """Random logits (2, 4, 5, 6) and labels; ignored is the share of void pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 5, 6, generator=generator)
    labels = torch.randint(4, (2, 5, 6), generator=generator)
    labels[torch.rand(2, 5, 6, generator=generator) < ignored] = IGNORE_LABEL
    return logits, labels


def naive_ohem(logits, labels, threshold, divisor):
    """Pixel by pixel."""
    probabilities = []
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(6)).tolist():
        if labels[b, i, j] != IGNORE_LABEL:
            probabilities.append(float(torch.softmax(logits[b, :, i, j], dim=0)[labels[b, i, j]]))
    probabilities.sort()
    min_kept = max(1, labels.numel() // divisor)
    kept = [p for rank, p in enumerate(probabilities) if p <= threshold or rank < min_kept]
    return sum(-log(p) for p in kept) / len(kept)


@pytest.mark.parametrize("divisor", [1, 2, 4, 16, 1000])  # 60, 30, 15, 3 and 0 pixels kept at least
@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("ignored", [0.0, 0.2, 0.8])
def test_ohem_is_the_mean_over_the_hard_pixels(ignored, threshold, divisor):
    logits, labels = logits_and_labels(ignored)

    loss = ohem_cross_entropy(logits, labels, OhemConfig(threshold=threshold, min_kept_divisor=divisor))

    assert float(loss) == pytest.approx(naive_ohem(logits, labels, threshold, divisor), rel=1e-5)


def test_ohem_is_cross_entropy_where_fewer_pixels_are_labelled_than_kept():
    logits, labels = logits_and_labels(ignored=0.8)

    loss = ohem_cross_entropy(logits, labels, OhemConfig(min_kept_divisor=1))

    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL))


def test_ohem_gives_easy_and_ignored_pixels_no_gradient():
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 0] = torch.tensor([5.0, 0.0, 0.0])
    logits.requires_grad_()
    labels = torch.tensor([[[0, 1, IGNORE_LABEL]]])  # easy, hard, void

    ohem_cross_entropy(logits, labels, OhemConfig(min_kept_divisor=3)).backward()

    torch.testing.assert_close(logits.grad[0, :, 0], torch.tensor([[0.0, 0.5, 0.0], [0.0, -0.5, 0.0]]))


def test_without_labels_there_is_no_loss_and_no_gradient():
    logits, labels = logits_and_labels(ignored=1.1)
    logits.requires_grad_()

    loss = ohem_cross_entropy(logits, labels, OhemConfig())
    loss.backward()

    assert float(loss.detach()) == 0
    assert not logits.grad.any()


def test_the_objective_adds_the_weighted_latency():
    assert float(search_objective(torch.tensor(2.0), torch.tensor(30.0), 0.01)) == pytest.approx(2.3)


def logits_of(*probabilities):
    """Logits (1, classes, 1, pixels)."""
    return torch.tensor(probabilities).log().T[None, :, None, :]


def test_distillation_is_the_divergence_of_the_student_from_the_teacher():
    student, teacher = logits_of((0.25, 0.75), (0.9, 0.1)), logits_of((0.5, 0.5), (0.6, 0.4))

    loss = distillation(student, teacher, torch.zeros(1, 1, 2, dtype=torch.long))

    first = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)
    second = 0.6 * log(0.6 / 0.9) + 0.4 * log(0.4 / 0.1)
    assert float(loss) == pytest.approx((first + second) / 2)


def test_the_papers_direction_swaps_the_networks():
    student, teacher = logits_of((0.25, 0.75), (0.9, 0.1)), logits_of((0.5, 0.5), (0.6, 0.4))
    labels = torch.zeros(1, 1, 2, dtype=torch.long)

    loss = distillation(student, teacher, labels, Divergence.STUDENT_TEACHER)

    assert torch.equal(loss, distillation(teacher, student, labels))
    assert not torch.equal(loss, distillation(student, teacher, labels))


def test_equal_networks_have_nothing_to_distil():
    logits, labels = logits_and_labels()

    assert float(distillation(logits, logits + 3.0, labels)) == pytest.approx(0, abs=1e-6)


def test_ignored_pixels_are_not_distilled():
    student, teacher = logits_of((0.25, 0.75), (0.9, 0.1)), logits_of((0.5, 0.5), (0.6, 0.4))

    loss = distillation(student, teacher, torch.tensor([[[0, IGNORE_LABEL]]]))

    assert float(loss) == pytest.approx(0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75))


def test_distillation_without_labels_is_0():
    student, teacher = logits_of((0.25, 0.75)), logits_of((0.5, 0.5))

    assert float(distillation(student, teacher, torch.full((1, 1, 1), IGNORE_LABEL))) == 0


def test_labels_are_downsampled_without_new_values():
    labels = torch.tensor([[[0, 1, 2, 3], [4, 5, 6, 7], [255, 255, 8, 8], [255, 255, 8, 8]]])

    assert downsampled_labels(labels, (2, 2)).tolist() == [[[0, 2], [255, 8]]]
