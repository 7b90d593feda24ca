import json
from dataclasses import replace

import pytest

from fasterseg_core.architecture import TABLE_7, Architecture
from tests.builders import a_branch, an_architecture

# Appendix I, Table 7 prints c_out = s x chi with the s that a cell reads; a cell that halves its map writes 2 s x chi.
PRINTED_CHANNELS = (
    [32, 32, 32, 32, 32, 32, 64, 192, 128],
    [32, 32, 32, 64, 64, 64, 64, 64, 128, 256],
)
WRITTEN_CHANNELS = (
    [32, 32, 32, 32, 32, 64, 64, 192, 128],
    [32, 32, 32, 128, 64, 64, 64, 128, 128, 256],
)
TABLE_7_DIGEST = "1b7faff88dadf9edcbd94dfdf085a7eaf295ca8657214009d09655abbd96a5df"


def out_channels(architecture):
    return tuple([branch.out_channels(i) for i in range(len(branch.cells))] for branch in architecture.branches)


def test_table_7_writes_the_published_channels():
    printed = tuple([cell.downsample_rate * cell.expansion_ratio for cell in b.cells] for b in TABLE_7.branches)

    assert printed == PRINTED_CHANNELS
    assert out_channels(TABLE_7) == WRITTEN_CHANNELS


def test_table_7_shares_three_cells_and_downsamples_where_the_next_cell_reads_less():
    first, second = TABLE_7.branches

    assert TABLE_7.num_shared_cells == 3
    assert TABLE_7.rates == (16, 32)
    assert TABLE_7.head_ratio == TABLE_7.stem_ratio == 8
    assert [i for i in range(9) if first.stride(i) == 2] == [5]
    assert [i for i in range(10) if second.stride(i) == 2] == [3, 7]
    assert [second.downsampling_index(rate) for rate in (8, 16)] == [3, 7]


def test_a_cell_reads_what_the_cell_before_it_wrote():
    branch = TABLE_7.branches[1]

    assert [branch.in_channels(i, stem_ratio=8) for i in range(10)] == [64, *WRITTEN_CHANNELS[1][:-1]]
    assert [branch.out_rate(i) for i in range(10)] == [8, 8, 8, 16, 16, 16, 16, 32, 32, 32]


@pytest.mark.parametrize("architecture", [TABLE_7, an_architecture(), an_architecture("conv 8 2")])
def test_a_document_round_trips(architecture):
    document = json.loads(json.dumps(architecture.to_document()))

    assert Architecture.from_document(document) == architecture


def test_canonical_json_does_not_depend_on_the_order_of_a_documents_keys():
    text = json.dumps(TABLE_7.to_document(), sort_keys=True)
    backwards = json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs)))

    assert Architecture.from_document(backwards).canonical_json() == TABLE_7.canonical_json()


def test_digests_never_change():
    assert TABLE_7.digest == TABLE_7_DIGEST


def test_any_cell_changes_the_digest():
    digests = {
        an_architecture(row).digest
        for row in ("conv 8 1, conv 8 2", "conv_x2 8 1, conv 8 2", "conv 8 3, conv 8 2", "conv 8 1, conv 16 2")
    }

    assert len(digests) == 4


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("conv 8 1, conv 16 2", "conv 8 1, conv 16 1, conv 32 2", 1),
        ("skip 8 1, conv 16 2", "conv 8 1, conv 16 1, conv 32 2", 0),  # operator
        ("conv 8 2, conv 16 2", "conv 8 1, conv 16 1, conv 32 2", 0),  # ratio
        ("conv 8 1, conv 8 1, conv 16 2", "conv 8 1, conv 16 1, conv 32 2", 0),  # stride
        ("conv 8 1, conv 8 1, conv 16 1, conv 16 2", "conv 8 1, conv 8 1, conv 16 1, conv 32 2", 2),
    ],
)
def test_branches_share_leading_cells_of_equal_operator_scale_and_ratio(first, second, shared):
    assert an_architecture(first, second).num_shared_cells == shared


def test_a_branchs_last_cell_is_never_shared():
    architecture = an_architecture("conv 8 1, conv 8 2", "conv 8 1, conv 8 2, conv 8 2, conv 16 2")

    assert architecture.num_shared_cells == 1


def test_one_branch_shares_nothing():
    assert an_architecture("conv 8 1, conv 8 2").num_shared_cells == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "begin with a cell at s = 8"),
        ("conv 16 1", "begin with a cell at s = 8"),
        ("conv 8 1, conv 32 1", "cell 2: rate 32 cannot follow 8"),
        ("conv 8 1, conv 16 1, conv 8 1", "cell 3: rate 8 cannot follow 16"),
        ("conv 8 1, conv 12 1", "cell 2: downsample_rate 12"),
        ("conv 8 1, conv 8 0", "cell 2: expansion_ratio must lie between 1 and 256"),
    ],
)
def test_an_impossible_branch_is_refused_by_the_number_of_its_cell(rows, message):
    with pytest.raises(ValueError, match=message):
        a_branch(rows)


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (["conv 8 1, conv 16 2", "conv 8 2, conv 16 2"], r"increasing rate, not of rates \[16, 16\]"),
        (["conv 8 1, conv 16 2", "conv 8 2"], "increasing rate"),
        (["conv 8 2", "conv 8 1, conv 16 2", "conv 8 1, conv 16 1, conv 32 2"], "one or two"),
        (["conv 8 1", "conv 8 1, conv 16 2"], "one expansion_ratio"),
    ],
)
def test_branches_that_do_not_fit_each_other_are_refused(branches, message):
    with pytest.raises(ValueError, match=message):
        an_architecture(*branches)


def test_a_stem_without_channels_is_refused():
    with pytest.raises(ValueError, match="stem_ratio must lie between 1 and 256"):
        replace(TABLE_7, stem_ratio=0)


def test_a_documents_unknown_operator_is_named_with_its_branch():
    document = an_architecture().to_document()
    document["branches"][1][0]["operator"] = "dilated_conv"

    with pytest.raises(ValueError, match="branch 2: 'dilated_conv' is not a valid Operator"):
        Architecture.from_document(document)


def test_a_documents_impossible_cell_is_named_with_its_branch():
    document = an_architecture().to_document()
    document["branches"][0][1]["downsample_rate"] = 32

    with pytest.raises(ValueError, match="branch 1: cell 2: rate 32 cannot follow 8"):
        Architecture.from_document(document)
