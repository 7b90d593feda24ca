import pytest
from pydantic import ValidationError

from services.client.architecture_diff import architecture_diff
from services.client.schemas import JsonObject


def a_document(*branches: str, stem_ratio: int = 2) -> JsonObject:
    """Cells as "operator rate ratio", separated by commas."""
    return {
        "stem_ratio": stem_ratio,
        "branches": [
            [
                dict(zip(("operator", "downsample_rate", "expansion_ratio"), cell.split(), strict=True))
                for cell in cells.split(", ")
            ]
            for cells in branches
        ],
    }


def rows(before: JsonObject, after: JsonObject) -> list[tuple[str, ...]]:
    """What the table says, spaces folded."""
    table, _ = architecture_diff(before, after)
    return list(zip(*([" ".join(str(text).split()) for text in column.cells] for column in table.columns), strict=True))


def test_equal_architectures_have_no_mark() -> None:
    document = a_document("conv 8 1, conv 16 2")

    assert architecture_diff(document, document)[1] == 0
    assert rows(document, document) == [
        ("stem", "2x8=16", "", "2x8=16"),
        ("16", "conv 8->16 1x16=16", "", "conv 8->16 1x16=16"),
        ("16", "conv 16->16 2x16=32", "", "conv 16->16 2x16=32"),
    ]


def test_each_difference_is_marked_and_counted() -> None:
    before, after = a_document("conv 8 1, conv 8 2"), a_document("conv 8 1, skip 8 2", stem_ratio=3)

    assert architecture_diff(before, after)[1] == 2
    assert rows(before, after) == [
        ("stem", "2x8=16", "<>", "3x8=24"),
        ("8", "conv 8->8 1x8=8", "", "conv 8->8 1x8=8"),
        ("8", "conv 8->8 2x8=16", "<>", "skip 8->8 2x8=16"),
    ]


def test_a_cell_more_does_not_shift_those_that_follow() -> None:
    before, after = a_document("conv 8 1, conv_x2 8 2"), a_document("conv 8 1, skip 8 1, conv_x2 8 2")

    assert [(left, mark) for _, left, mark, _ in rows(before, after)][2:] == [
        ("", "<>"),
        ("conv_x2 8->8 2x8=16", ""),
    ]


def test_branches_are_compared_by_their_rate() -> None:
    before, after = a_document("conv 8 1", "conv 8 1, conv 16 1"), a_document("conv 8 1, conv 16 1")

    assert [(part, mark) for part, _, mark, _ in rows(before, after)] == [
        ("stem", ""),
        ("8", "<>"),
        ("16", ""),
        ("16", ""),
    ]


def test_a_document_of_something_else_is_refused() -> None:
    with pytest.raises(ValidationError):
        architecture_diff({"rows": {}}, a_document("conv 8 1"))
    with pytest.raises(ValidationError):
        architecture_diff({"stem_ratio": 8, "branches": [[]]}, a_document("conv 8 1"))
