"""A derived architecture as an SVG picture in the manner of Figure 6: layers from left to right, scales downwards.

Standard library only: the control plane draws architectures and carries neither torch nor matplotlib.
"""

from collections.abc import Iterator
from itertools import pairwise

from fasterseg_core.architecture import Architecture, Cell
from fasterseg_core.search_space import DOWNSAMPLE_RATES, Operator

_NAMES = {
    Operator.SKIP: "skip",
    Operator.CONV: "conv",
    Operator.CONV_X2: "conv x2",
    Operator.ZOOMED_CONV: "zoomed conv",
    Operator.ZOOMED_CONV_X2: "zoomed conv x2",
}

_CELL_WIDTH, _CELL_HEIGHT = 112, 40  # pixels, as all lengths here
_COLUMN, _ROW = 140, 120
_LANE = 26  # by which the cells of two branches stand above and below the middle of their row
_LEFT, _TOP = 196, 64  # of the first cell's column and row
_SIDE_BOX = 84  # width of stem and head

_SHARED = ("#5f6b76", "#e9ecef")  # stroke and fill
_BRANCHES = (("#2a6fb0", "#dbe9f7"), ("#cf6a1e", "#fce8d8"))
_FONT = "font-family='Helvetica, Arial, DejaVu Sans, sans-serif'"


def architecture_svg(architecture: Architecture) -> str:
    """The stem, every cell with its operator and expansion ratio chi, the branches' paths and the head, as one SVG.

    Cells that the branches share are drawn once. A tooltip on each cell gives its scales and widths.
    """
    layers = max(len(branch.cells) for branch in architecture.branches)
    width = _x(layers) + 2 * _SIDE_BOX + 16
    height = _TOP + _ROW * len(DOWNSAMPLE_RATES) + 40
    parts = [
        *_lattice(architecture, layers),
        *_paths(architecture, layers),
        *_stem_and_head(architecture, layers),
        *_cells(architecture),
        *_legend(architecture, height - 20),
    ]
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        f"role='img' {_FONT} font-size='13' text-anchor='middle'>\n"
        f"<title>Architecture {architecture.digest[:12]}</title>\n"
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _x(layer: int) -> int:
    """The left edge of a layer's cells."""
    return _LEFT + layer * _COLUMN


def _middle(rate: int) -> int:
    """The middle of a scale's row."""
    return _TOP + DOWNSAMPLE_RATES.index(rate) * _ROW + _ROW // 2


def _y(architecture: Architecture, number: int, layer: int) -> int:
    """The middle of a branch's cell: on the row's middle where it is shared or alone, else above or below."""
    middle = _middle(architecture.branches[number].cells[layer].downsample_rate)
    if len(architecture.branches) == 1 or layer < architecture.num_shared_cells:
        return middle
    return middle + (_LANE if number else -_LANE)


def _lattice(architecture: Architecture, layers: int) -> Iterator[str]:
    """The rows with their scales, the layers' numbers, and a dot where the lattice has a cell that was not chosen."""
    chosen = {(cell.downsample_rate, i) for branch in architecture.branches for i, cell in enumerate(branch.cells)}
    for rate in DOWNSAMPLE_RATES:
        y = _middle(rate)
        yield f"<line x1='{_LEFT - 32}' x2='{_x(layers)}' y1='{y}' y2='{y}' stroke='#e3e6e9' stroke-dasharray='3 5'/>"
        yield f"<text x='44' y='{y + 5}' font-size='15' fill='#3c4650'>s = {rate}</text>"
        for layer in range(DOWNSAMPLE_RATES.index(rate), layers):
            if (rate, layer) not in chosen:
                yield f"<circle cx='{_x(layer) + _CELL_WIDTH // 2}' cy='{y}' r='4' fill='#d5dade'/>"
    for layer in range(layers):
        yield f"<text x='{_x(layer) + _CELL_WIDTH // 2}' y='36' fill='#7b8791'>{layer + 1}</text>"


def _paths(architecture: Architecture, layers: int) -> Iterator[str]:
    """The way of each branch from the stem through its cells into the head; the shared way is drawn last, on top."""
    shared = architecture.num_shared_cells
    for number, branch in enumerate(architecture.branches):
        points = [(_LEFT - 30, _middle(DOWNSAMPLE_RATES[0]))]
        for layer in range(len(branch.cells)):
            y = _y(architecture, number, layer)
            points += [(_x(layer), y), (_x(layer) + _CELL_WIDTH, y)]
        points.append((_x(layers) + 14, points[-1][1]))
        own, common = points[2 * shared :], points[: 2 * shared + 1]
        yield _path(own, _BRANCHES[number][0])
        if shared:
            yield _path(common, _SHARED[0])


def _path(points: list[tuple[int, int]], stroke: str) -> str:
    steps = [f"M{points[0][0]},{points[0][1]}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (x1 - x0) // 2
        steps.append(f"C{x0 + bend},{y0} {x1 - bend},{y1} {x1},{y1}" if y0 != y1 else f"L{x1},{y1}")
    return f"<path d='{' '.join(steps)}' fill='none' stroke='{stroke}' stroke-width='3.5'/>"


def _cells(architecture: Architecture) -> Iterator[str]:
    shared = architecture.num_shared_cells
    for number, branch in enumerate(architecture.branches):
        for layer in range(shared if number else 0, len(branch.cells)):
            colours = _SHARED if layer < shared else _BRANCHES[number]
            cell = branch.cells[layer]
            owner = "shared" if layer < shared else f"branch s = {branch.downsample_rate}"
            tooltip = (
                f"{owner}, cell {layer + 1}: {_NAMES[cell.operator]}, reads s = {cell.downsample_rate} with "
                f"{branch.in_channels(layer, architecture.stem_ratio)} channels, writes s = {branch.out_rate(layer)} "
                f"with {branch.out_channels(layer)}"
            )
            yield _cell(cell, _x(layer), _y(architecture, number, layer), colours, tooltip)


def _cell(cell: Cell, x: int, y: int, colours: tuple[str, str], tooltip: str) -> str:
    dashes = " stroke-dasharray='5 3'" if cell.operator is Operator.SKIP else ""
    stroke, fill = colours
    return (
        f"<g class='cell'><title>{tooltip}</title>"
        f"<rect x='{x}' y='{y - _CELL_HEIGHT // 2}' width='{_CELL_WIDTH}' height='{_CELL_HEIGHT}' rx='7' "
        f"fill='{fill}' stroke='{stroke}' stroke-width='1.8'{dashes}/>"
        f"<text x='{x + _CELL_WIDTH // 2}' y='{y - 3}' fill='#1d252c'>{_NAMES[cell.operator]}</text>"
        f"<text x='{x + _CELL_WIDTH // 2}' y='{y + 14}' fill='#1d252c'>χ = {cell.expansion_ratio}</text></g>"
    )


def _stem_and_head(architecture: Architecture, layers: int) -> Iterator[str]:
    yield _box("stem", architecture.stem_ratio, _LEFT - 30 - _SIDE_BOX, _middle(DOWNSAMPLE_RATES[0]) - 34, 68)
    top, bottom = _middle(architecture.rates[0]) - 52, _middle(architecture.rates[-1]) + 52
    yield _box("head", architecture.head_ratio, _x(layers) + 14, top, bottom - top)


def _box(name: str, ratio: int, x: int, y: int, height: int) -> str:
    middle = x + _SIDE_BOX // 2
    return (
        f"<g class='{name}'><rect x='{x}' y='{y}' width='{_SIDE_BOX}' height='{height}' rx='7' fill='#f6f3ea' "
        f"stroke='#8a7a45' stroke-width='1.8'/>"
        f"<text x='{middle}' y='{y + height // 2 - 2}' font-size='15' fill='#1d252c'>{name}</text>"
        f"<text x='{middle}' y='{y + height // 2 + 16}' fill='#1d252c'>χ = {ratio}</text></g>"
    )


def _legend(architecture: Architecture, y: int) -> Iterator[str]:
    """What each colour stands for."""
    entries = [(_SHARED[0], "shared by both branches")] if architecture.num_shared_cells else []
    entries += [
        (_BRANCHES[number][0], f"branch ending at s = {rate}") for number, rate in enumerate(architecture.rates)
    ]
    for i, (stroke, text) in enumerate(entries):
        x = _LEFT + i * 220
        yield f"<line x1='{x}' x2='{x + 28}' y1='{y}' y2='{y}' stroke='{stroke}' stroke-width='4'/>"
        yield f"<text x='{x + 38}' y='{y + 5}' text-anchor='start' fill='#3c4650'>{text}</text>"
