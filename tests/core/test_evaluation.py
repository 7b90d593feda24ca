import pytest
import torch
from torch import nn

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.evaluation import best_constant, confusion_matrix, evaluate, evaluate_each, score


def test_a_confusion_matrix_counts_truth_by_prediction():
    labels = torch.tensor([[0, 0, 1], [1, 2, 2]])
    predictions = torch.tensor([[0, 1, 1], [1, 0, 2]])

    assert confusion_matrix(predictions, labels, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


def test_ignored_pixels_are_not_counted():
    labels = torch.tensor([0, IGNORE_LABEL, 1])

    assert confusion_matrix(torch.tensor([0, 1, 0]), labels, 2).tolist() == [[1, 0], [1, 0]]


def test_iou_is_intersection_over_union():
    # Class 0: 3 hits, union 3 + 1 + 1; class 1: 2 hits, union 2 + 2; class 2: 4 hits, union 4 + 1.
    result = score(torch.tensor([[3, 1, 0], [1, 2, 0], [0, 0, 4]]))

    assert result.class_iou == pytest.approx((3 / 5, 2 / 4, 4 / 4))
    assert result.miou == pytest.approx((3 / 5 + 2 / 4 + 1) / 3)
    assert result.pixel_accuracy == pytest.approx(9 / 11)


def test_a_class_that_never_occurs_does_not_count():
    result = score(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))

    assert result.class_iou == (pytest.approx(3 / 4), pytest.approx(4 / 5), None)
    assert result.miou == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_a_class_that_is_only_predicted_counts_as_0():
    result = score(torch.tensor([[3, 1], [0, 0]]))

    assert result.class_iou == pytest.approx((3 / 4, 0))
    assert result.miou == pytest.approx(3 / 8)


def test_nothing_labelled_scores_0():
    result = score(torch.zeros(2, 2, dtype=torch.int64))

    assert (result.miou, result.pixel_accuracy, result.class_iou) == (0, 0, (None, None))


class Brightness(nn.Module):
    """Class 1 where the first channel is positive."""

    def forward(self, images):
        return torch.stack([-images[:, 0], images[:, 0]], dim=1)


def test_a_network_is_scored_over_all_batches_in_evaluation_mode():
    modes = []
    network = Brightness().train()
    network.register_forward_hook(lambda module, *_: modes.append(module.training))
    bright, dark = torch.ones(1, 3, 1, 2), -torch.ones(1, 3, 1, 2)
    batches = [(bright, torch.tensor([[[1, 1]]])), (dark, torch.tensor([[[0, 1]]]))]

    result = evaluate(network, batches, 2)

    assert result.class_iou == pytest.approx((1 / 2, 2 / 3))
    assert modes == [False, False]
    assert network.training


def test_several_predictions_are_scored_in_one_pass():
    images, labels, seen = torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[1, 1]]]), []
    network = Brightness()

    def predict(batch):
        seen.append(len(batch))
        return {"right": network(batch), "wrong": network(-batch)}

    scores = evaluate_each(predict, [(images, labels), (-images, labels)], 2)

    assert seen == [1, 1]
    assert {key: score.pixel_accuracy for key, score in scores.items()} == {"right": 0.5, "wrong": 0.5}
    assert scores["right"] == evaluate(network, [(images, labels), (-images, labels)], 2)


def test_logits_of_another_size_are_resized_to_the_labels():
    logits = torch.tensor([[[[5.0, -1.0]], [[0.0, 0.0]]]])  # class 0 on the left, class 1 on the right

    scores = evaluate_each(lambda _: {"coarse": logits}, [(torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 0, 0, 1]]]))], 2)

    assert scores["coarse"].pixel_accuracy == 1


def test_the_best_constant_prediction_is_the_most_frequent_class():
    result = best_constant([20, 50, 30])

    assert result.class_iou == pytest.approx((0, 0.5, 0))
    assert result.miou == pytest.approx(0.5 / 3)
    assert result.pixel_accuracy == pytest.approx(0.5)


def test_the_best_constant_leaves_absent_classes_out():
    result = best_constant([0, 60, 40])

    assert result.class_iou == (None, pytest.approx(0.6), 0)
    assert result.miou == pytest.approx(0.3)
