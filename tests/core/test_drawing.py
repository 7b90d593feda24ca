from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

from fasterseg_core.architecture import TABLE_7, Architecture, Branch
from fasterseg_core.drawing import architecture_svg
from fasterseg_core.search_space import Operator

SVG = "{http://www.w3.org/2000/svg}"


def groups(architecture: Architecture, name: str = "cell") -> list[ET.Element]:
    root = ET.fromstring(architecture_svg(architecture))
    return [group for group in root.iter(f"{SVG}g") if group.get("class") == name]


def texts(group: ET.Element) -> list[str]:
    return [text.text or "" for text in group.iter(f"{SVG}text")]


def left_edge(group: ET.Element) -> int:
    return int(next(group.iter(f"{SVG}rect")).get("x", ""))


def test_shared_cells_are_drawn_once():
    cells = groups(TABLE_7)

    assert len(cells) == 9 + 10 - TABLE_7.num_shared_cells
    assert TABLE_7.num_shared_cells == 3


def test_every_cell_names_its_operator_and_ratio():
    cells = groups(Architecture(stem_ratio=8, branches=(TABLE_7.branches[1],)))

    expected = [
        [cell.operator.value.replace("_", " "), f"χ = {cell.expansion_ratio}"] for cell in TABLE_7.branches[1].cells
    ]
    assert [texts(cell) for cell in cells] == expected


def test_a_tooltip_tells_both_scales_and_widths():
    last_at_8 = groups(TABLE_7)[5]

    title = next(last_at_8.iter(f"{SVG}title")).text

    assert title == "branch s = 16, cell 6: conv x2, reads s = 8 with 32 channels, writes s = 16 with 64"


def test_cells_of_one_layer_do_not_overlap():
    boxes = [next(group.iter(f"{SVG}rect")) for group in groups(TABLE_7)]

    places = sorted((int(box.get("x", "")), int(box.get("y", "")), int(box.get("height", ""))) for box in boxes)

    assert all(x0 != x1 or y0 + height < y1 for (x0, y0, height), (x1, y1, _) in pairwise(places))


def test_stem_and_head_stand_on_either_side():
    (stem,), (head,) = groups(TABLE_7, "stem"), groups(TABLE_7, "head")

    edges = [left_edge(cell) for cell in groups(TABLE_7)]

    assert texts(stem) == ["stem", "χ = 8"]
    assert texts(head) == ["head", "χ = 8"]
    assert left_edge(stem) < min(edges)
    assert left_edge(head) > max(edges)


def test_branches_that_share_nothing_leave_from_the_stem():
    first = replace(TABLE_7.branches[0].cells[0], operator=Operator.SKIP)
    architecture = replace(TABLE_7, branches=(Branch((first, *TABLE_7.branches[0].cells[1:])), TABLE_7.branches[1]))

    cells = groups(architecture)

    assert len(cells) == 19
    assert texts(cells[0]) == ["skip", "χ = 4"]


def test_the_drawing_is_the_same_each_time():
    assert architecture_svg(TABLE_7) == architecture_svg(TABLE_7)
