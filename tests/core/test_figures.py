from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fasterseg_core.figures import latency_fidelity, prediction_rows, search_comparison, search_curves, training_curves


def opened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image.convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {tuple(colour) for colour in np.unique(np.array(image).reshape(-1, 3), axis=0).tolist()}


def test_search_curves_show_both_axes_in_their_colours():
    png = search_curves([1, 2, 3], {"student": [0.1, 0.2, 0.3]}, {"student": [None, 9.0, 8.0]})

    assert {(0x2A, 0x6F, 0xB0), (0xCF, 0x6A, 0x1E)} <= colours(opened(png))


def test_search_curves_of_two_networks():
    values = {"student": [0.1, 0.2], "teacher": [0.2, 0.3]}

    assert opened(search_curves([1, 2], values, values)).width > 300


def test_a_comparison_has_a_panel_for_each_title_on_common_axes():
    one = ([[0.1, 0.2], [0.3, 0.2]], [[9.0, 8.0], [7.0, 8.5]])

    narrow, wide = (opened(search_comparison({str(i): one for i in range(number)}, columns=2)) for number in (2, 4))

    assert {(0x2A, 0x6F, 0xB0), (0xCF, 0x6A, 0x1E)} <= colours(narrow)
    assert (wide.width, wide.height) == (narrow.width, 2 * narrow.height)


def test_latency_fidelity_shows_the_red_line():
    png = latency_fidelity([4.0, 6.0, 8.0], [4.2, 5.9, 8.1])

    assert (255, 0, 0) in colours(opened(png))


def test_latency_fidelity_refuses_lists_of_different_lengths():
    with pytest.raises(ValueError, match="same number of data points"):
        latency_fidelity([4.0, 6.0], [4.2])


def test_prediction_rows_paint_labels_in_their_colours_and_void_black():
    images = torch.full((2, 3, 12, 16), 90, dtype=torch.uint8)
    truths = torch.tensor([[[0, 255]], [[1, 1]]], dtype=torch.uint8).repeat_interleave(8, 2).expand(2, 12, 16)
    predictions = torch.zeros(2, 12, 16, dtype=torch.long)

    png = prediction_rows(
        images, truths, [predictions], [(10, 200, 30), (200, 20, 220)], ["image", "truth", "student"], ["a", "b"]
    )

    assert {(90, 90, 90), (10, 200, 30), (200, 20, 220), (0, 0, 0)} <= colours(opened(png))


def test_prediction_rows_need_a_title_for_each_column():
    images, labels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.long)

    with pytest.raises(ValueError, match="zip"):
        prediction_rows(images, labels, [labels], [(0, 0, 0)], ["image", "truth"])


def test_training_curves_leave_out_what_was_not_measured():
    png = training_curves([1, 2, 3, 4], {"loss": [3.0, 2.0, 1.5, 1.2]}, {"hold-out": [None, 0.2, None, 0.4]})

    assert opened(png).height > 300


def test_training_curves_before_the_first_evaluation():
    png = training_curves([1, 2], {"loss": [3.0, 2.0]}, {"hold-out": [None, None]})

    assert opened(png).height > 300
