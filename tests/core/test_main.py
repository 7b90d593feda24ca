import json

import numpy as np
import pytest
import torch

from fasterseg_core.__main__ import main
from fasterseg_core.architecture import Architecture
from fasterseg_core.config import Role
from fasterseg_core.derive import derive
from fasterseg_core.latency import balanced_weights, sensitivities, space_latency
from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.reference_rule import derive_by_reference
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import SearchSpace
from tests.builders import a_latency_table, a_published_search, a_relaxation, a_search_space

ENTRIES = {"ConvNorm_H64_W128_Cin3_Cout8_kernel3_stride2": 1.0, "head_H8_W16_Cin16_Cout19": 2.0, "what_H1_W1_C1": 3.0}


@pytest.fixture
def search(tmp_path):
    """A published search, and the file that holds it."""
    relaxation = a_relaxation(SearchSpace(), seed=1)
    torch.save(a_published_search(relaxation), tmp_path / "arch_1.pt")
    return relaxation, tmp_path / "arch_1.pt"


@pytest.mark.parametrize(("rule", "derived"), [("paper", derive), ("reference", derive_by_reference)])
def test_a_published_search_becomes_an_architecture(search, capsys, rule, derived):
    relaxation, path = search

    code = main(["arch", "import", str(path), "--rule", rule, "--branches", "8+32"])

    printed = capsys.readouterr()
    assert code == 0
    assert Architecture.from_document(json.loads(printed.out)) == derived(relaxation, (8, 32)).architecture
    assert printed.err == f"a student of 16 layers, rule {rule}\n"


def test_a_published_table_becomes_a_table_and_what_is_left_out_is_said(tmp_path, capsys):
    np.save(tmp_path / "table.npy", ENTRIES, allow_pickle=True)

    code = main(["lut", "import", str(tmp_path / "table.npy"), "--device", "a GPU", "-o", str(tmp_path / "table.json")])

    table = LatencyTable.from_document(json.loads((tmp_path / "table.json").read_text()))
    printed = capsys.readouterr()
    assert (code, printed.out) == (0, "")
    assert table.fingerprint.device == "a GPU"
    assert {spec.key for spec in table.rows} == {"conv 3->8 64x128 /2", "prediction 16->19 8x16 /1"}
    assert printed.err == (
        f"left out  what_H1_W1_C1: no operator of this project\ntable {table.digest[:12]} of 2 rows\n"
    )


def test_what_a_table_lacks_costs_nothing_where_that_is_asked_for(tmp_path, capsys):
    np.save(tmp_path / "table.npy", ENTRIES, allow_pickle=True)

    main(["lut", "import", str(tmp_path / "table.npy"), "--free-resizing"])

    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["milliseconds"] for key, row in rows.items() if key.startswith(("upsample", "concat"))} == {0}


@pytest.mark.parametrize("kind", ["arch", "lut"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, kind):
    (tmp_path / "notes.txt").write_text("no pickle")

    assert [main([kind, "import", str(tmp_path / name)]) for name in ("notes.txt", "absent")] == [1, 1]

    refused, absent = capsys.readouterr().err.splitlines()
    assert refused.startswith("notes.txt is refused: ")
    assert absent.startswith("[Errno 2] No such file or directory")


def a_table_file(tmp_path, space):
    table = a_latency_table(space, num_classes=3)
    (tmp_path / "table.json").write_text(json.dumps(table.to_document()))
    return table, str(tmp_path / "table.json")


def test_sensitivities_of_a_table_and_the_weights_that_balance_them(tmp_path, capsys):
    space = a_search_space(num_layers=5, expansion_ratios=(1, 2, 3), student_ratio=2)
    table, file = a_table_file(tmp_path, space)
    relaxation = Relaxation(space, Role.STUDENT)
    expected = sensitivities(relaxation, space_latency(space, relaxation, table))

    code = main(["lut", "sensitivities", file, "--layers", "5", "--ratios", "1", "2", "3"])

    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert tuple(document["sensitivity_ms"].values()) == expected
    assert tuple(document["granularity_weights"].values()) == balanced_weights(expected)


def test_sensitivities_of_another_space_are_refused_with_the_options_that_say_which(tmp_path, capsys):
    _, file = a_table_file(tmp_path, a_search_space(num_layers=5, expansion_ratios=(1, 2, 3), student_ratio=2))

    assert main(["lut", "sensitivities", file]) == 1
    assert "give the --layers and --ratios that it was measured for" in capsys.readouterr().err


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "table.json").write_text("[]")

    assert main(["lut", "sensitivities", str(tmp_path / "table.json")]) == 1
    assert "table.json is no latency table" in capsys.readouterr().err
