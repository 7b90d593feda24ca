"""Curves and pictures: Figures 3, 4 and 7 of the paper, the losses of a training, the scalars of a search.

Drawn with matplotlib, not by hand as drawing.py draws architectures: axes, ticks, legends and the scaling of images are
its trade, and only workers, which have it installed, make these pictures. Figures are built without pyplot, whose list
of open figures is global, on the Agg canvas, which needs no display.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from statistics import correlation

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.segmentation import Colour

_MIOU_COLOUR, _LATENCY_COLOUR = "#2a6fb0", "#cf6a1e"
_LINE_STYLES = ("-", "--", ":", "-.")


def search_curves(
    epochs: Sequence[int],
    miou: Mapping[str, Sequence[float | None]],
    latency_ms: Mapping[str, Sequence[float | None]],
) -> bytes:
    """mIoU (percent, from shares) and latency (ms) of each network over the epochs of a search, as Figure 4.

    The keys name the networks, such as "student" and "teacher"; None where an epoch has no value.
    """
    figure, left = _axes(7.5, 4.5)
    right = left.twinx()
    for axes, values, colour, scale, label in (
        (left, miou, _MIOU_COLOUR, 100.0, "mIoU (%)"),
        (right, latency_ms, _LATENCY_COLOUR, 1.0, "latency (ms)"),
    ):
        for style, (name, series) in zip(cycle(_LINE_STYLES), values.items(), strict=False):
            points = [float("nan") if value is None else value * scale for value in series]
            axes.plot(epochs, points, style, color=colour, marker=".", label=f"{name} {label}")
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", labelcolor=colour)
    _epoch_axis(left)
    lines = [*left.get_lines(), *right.get_lines()]
    names = [str(line.get_label()) for line in lines]
    figure.legend(lines, names, fontsize=8, loc="outside upper center", ncols=min(4, len(lines)))  # over neither curve
    return _png(figure)


def search_comparison(
    panels: Mapping[str, tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]], columns: int
) -> bytes:
    """mIoU (percent, from shares) and latency (ms) over epochs, as Figure 4, of several searches in each titled panel.

    A panel has a thin line for each search and a thick one for their mean; all panels have the same axes.
    """
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    latency_axes: list[Axes] = []
    for (title, (miou, latency_ms)), left in zip(panels.items(), grid.flat, strict=False):
        right = left.twinx()
        if latency_axes:
            right.sharey(latency_axes[0])
        latency_axes.append(right)
        for axes, searches, colour, scale, label in (
            (left, miou, _MIOU_COLOUR, 100.0, "mIoU (%)"),
            (right, latency_ms, _LATENCY_COLOUR, 1.0, "latency (ms)"),
        ):
            values = scale * np.array(searches)
            epochs = np.arange(1, values.shape[1] + 1)
            axes.plot(epochs, values.T, color=colour, linewidth=0.8, alpha=0.4)
            axes.plot(epochs, values.mean(axis=0), color=colour, linewidth=2.2)
            axes.set_ylabel(label, color=colour)
            axes.tick_params(axis="y", labelcolor=colour)
        left.set_title(title, fontsize=10)
        left.grid(alpha=0.3)
        _epoch_axis(left)
    return _png(figure)


def latency_fidelity(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> bytes:
    """Measured latency of whole networks against the table's estimate, with the red line y = x, as Figure 3.

    The title gives the linear coefficient r and the mean absolute percentage error. Needs two networks or more.
    """
    r = correlation(predicted_ms, measured_ms)
    mape = 100 * sum(abs(p - m) / m for p, m in zip(predicted_ms, measured_ms, strict=True)) / len(measured_ms)
    figure, axes = _axes(5.0, 4.8)
    low, high = min(*predicted_ms, *measured_ms), max(*predicted_ms, *measured_ms)
    margin = 0.06 * (high - low) or 0.06 * high
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="red", linewidth=1.2, label="y = x")
    axes.scatter(predicted_ms, measured_ms, s=26, color=_MIOU_COLOUR, alpha=0.8, label="network")
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="estimated latency (ms)", ylabel="measured latency (ms)")
    axes.set_title(f"r = {r:.4f}, MAPE = {mape:.2f} %, {len(measured_ms)} networks", fontsize=11)
    axes.legend(loc="upper left", fontsize=9)
    return _png(figure)


def prediction_rows(
    images: Tensor,
    truths: Tensor,
    predictions: Sequence[Tensor],
    colours: Sequence[Colour],
    titles: Sequence[str],
    classes: Sequence[str] = (),
) -> bytes:
    """A row for each image: image | truth | each network's prediction, as Figure 7; what is not labelled is black.

    Args:
        images: uint8 (N, 3, H, W).
        truths: (N, H, W), class ids and IGNORE_LABEL.
        predictions: (N, H, W) of class ids for each network.
        colours: of the classes, in the order of their ids.
        titles: of the columns, from the image on.
        classes: their names, for a legend below.
    """
    columns = [images.permute(0, 2, 3, 1).numpy(), *(_painted(labels, colours) for labels in (truths, *predictions))]
    num_rows, (height, width) = len(images), images.shape[-2:]
    cell_width = 3.0
    cell_height, legend_height = cell_width * height / width, 0.5 if classes else 0.0
    figure = Figure(figsize=(cell_width * len(columns), cell_height * num_rows + 0.35 + legend_height))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.subplots(num_rows, len(columns), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    for row, cells in enumerate(grid):
        for axes, column in zip(cells, columns, strict=True):
            axes.imshow(column[row], interpolation="nearest")
            axes.set_axis_off()
    if classes:
        patches = [Patch(color=(red / 255, green / 255, blue / 255)) for red, green, blue in colours]
        figure.legend(patches, list(classes), loc="outside lower center", ncols=min(6, len(classes)), fontsize=8)
    return _png(figure)


def training_curves(
    epochs: Sequence[int],
    losses: Mapping[str, Sequence[float | None]],
    miou: Mapping[str, Sequence[float | None]],
) -> bytes:
    """Losses above and mIoU (percent, from shares) below over the epochs of a training; None where it has no value."""
    figure = Figure(figsize=(7.0, 6.0), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, values, scale, label in ((upper, losses, 1.0, "loss"), (lower, miou, 100.0, "mIoU (%)")):
        for name, series in values.items():
            known = {epoch: value * scale for epoch, value in zip(epochs, series, strict=True) if value is not None}
            axes.plot(list(known), list(known.values()), marker=".", label=name)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    _epoch_axis(lower)
    return _png(figure)


def choices_heat_map(
    probabilities: Sequence[Sequence[float]], layers: Sequence[int], choices: Sequence[str], title: str
) -> NDArray[np.uint8]:
    """How probable each choice (columns) is in each layer (rows), in percent, as an RGB image (H, W, 3).

    For alpha, beta and gamma of one rate (eq. 7).
    """
    width, height = 0.7 + 0.85 * len(choices), 1.0 + 0.3 * len(layers)
    figure = Figure(figsize=(width, height), dpi=90)
    axes = figure.add_axes((0.55 / width, 0.6 / height, 1 - 0.7 / width, 1 - 1.0 / height))  # a layout takes longer
    axes.imshow(np.array(probabilities), cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_title(title, fontsize=11)
    axes.set_ylabel("layer")
    axes.set_xticks(range(len(choices)), choices, fontsize=8)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=8)
    for row, values in enumerate(probabilities):
        for column, value in enumerate(values):
            colour = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{100 * value:.0f} %", ha="center", va="center", color=colour, fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _painted(labels: Tensor, colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """Class ids (N, H, W) as their colours (N, H, W, 3)."""
    palette = np.zeros((IGNORE_LABEL + 1, 3), np.uint8)
    palette[: len(colours)] = colours
    painted: NDArray[np.uint8] = palette[labels.numpy()]
    return painted


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    FigureCanvasAgg(figure)  # sets the figure's canvas
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
