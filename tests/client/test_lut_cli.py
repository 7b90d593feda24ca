import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.client.cli import app
from services.client.schemas import JobState, JsonObject
from tests.client.conftest import Run
from tests.client.fake_control_plane import (
    CONV,
    SKIP,
    TABLE_DOCUMENT,
    TABLE_ID,
    FakeControlPlane,
    a_row,
    a_table_document,
    unknown_field,
)

UNSTABLE = a_row(0.0, state="quarantined", reason="unstable")


def a_file(path: Path, document: JsonObject) -> str:
    path.write_text(json.dumps(document))
    return str(path)


# ---- build ----


def test_build_submits_a_profile_job_and_prints_its_id(plane: FakeControlPlane, run: Run) -> None:
    result = run(
        "lut", "build", "--preset", "quick", "--engine", "openvino", "--threads", "2", "--precision", "fp32",
        "--height", "360", "--width", "480", "--dataset", "camvid", "--from", TABLE_ID, "--name", "my CPU",
    )  # fmt: skip

    (submission,) = plane.submissions.values()
    assert (result.exit_code, result.stdout) == (0, "000000000001\n")
    assert (submission.kind, submission.preset, submission.name) == ("profile", "quick", "my CPU")
    assert submission.inputs.latency_table == TABLE_ID
    assert submission.spec == {
        "engine": "openvino",
        "threads": 2,
        "precision": "fp32",
        "dataset": "camvid",
        "resolution": {"height": 360, "width": 480},
    }


def test_what_build_is_not_told_is_left_to_the_preset(plane: FakeControlPlane, run: Run) -> None:
    run("lut", "build", "--height", "512")

    (submission,) = plane.submissions.values()
    assert (submission.spec, submission.inputs.latency_table) == ({"resolution": {"height": 512}}, None)


def test_build_that_waits_prints_the_tables_id_last(plane: FakeControlPlane, run: Run) -> None:
    plane.fate = [JobState.SUCCEEDED]
    plane.made = {"latency_table": TABLE_ID}

    result = run("lut", "build", "--wait")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "000000000001"
    assert result.stdout.splitlines()[-1] == TABLE_ID


def test_build_that_fails_exits_with_1(plane: FakeControlPlane, run: Run) -> None:
    plane.fate = [JobState.FAILED]

    assert run("lut", "build", "--wait").exit_code == 1


def test_build_as_json_is_the_job(plane: FakeControlPlane, run: Run) -> None:
    assert json.loads(run("lut", "build", "--json").stdout)["id"] == "000000000001"


def test_a_field_that_the_service_refuses_is_named(plane: FakeControlPlane, run: Run) -> None:
    plane.refusals["POST /jobs"] = unknown_field("spec.engine")

    result = run("lut", "build", "--engine", "tensorflow")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "spec.engine: " in result.stderr


def test_build_measures_a_part(plane: FakeControlPlane, run: Run) -> None:
    run("lut", "build", "--part", "2/3")

    (submission,) = plane.submissions.values()
    assert submission.spec == {"part": 2, "parts": 3, "random_networks": 0}


def test_build_measures_operators_alone(plane: FakeControlPlane, run: Run) -> None:
    run("lut", "build", "--alone")

    (submission,) = plane.submissions.values()
    assert submission.spec == {"alone": True}


def test_a_part_that_is_none_is_refused(plane: FakeControlPlane, run: Run) -> None:
    result = run("lut", "build", "--part", "third")

    assert (result.exit_code, plane.submissions) == (2, {})
    assert "'third' is not a part such as 1/3" in result.stderr


# ---- list, show ----


def test_list_shows_a_line_for_each_table(plane: FakeControlPlane, run: Run) -> None:
    other = plane.add_table(a_table_document({CONV: a_row(), SKIP: UNSTABLE}, device="a GPU", engine="tensorrt"))

    header, first, second = run("lut", "list").stdout.splitlines()

    assert header.split() == ["ID", "ENGINE", "DEVICE", "RESOLUTION", "ROWS", "QUARANTINED", "JOB", "CREATED"]
    assert first.split() == [
        TABLE_ID[:12], "onnxruntime", "a", "processor", "64x128", "2", "0", "added", "2026-01-02", "03:04",
    ]  # fmt: skip
    assert second.split()[:2] == [other[:12], "tensorrt"]
    assert second.split()[5:7] == ["2", "1"]


def test_a_list_in_a_narrow_terminal_cuts_nothing_off(plane: FakeControlPlane) -> None:
    result = CliRunner().invoke(app, ["lut", "list"], env={"FASTERSEG_URL": plane.url, "COLUMNS": "80"})

    assert result.stdout.splitlines()[1].split() == [
        TABLE_ID[:12], "onnxruntime", "a", "processor", "64x128", "2", "0", "added", "2026-01-02", "03:04",
    ]  # fmt: skip


def test_list_as_json_has_whole_ids(run: Run) -> None:
    assert [table["id"] for table in json.loads(run("lut", "list", "--json").stdout)] == [TABLE_ID]


def test_show_tells_the_fingerprint_and_the_rows_with_their_quartiles(plane: FakeControlPlane, run: Run) -> None:
    document = a_table_document({CONV: a_row(1.5, lower_quartile=1.25, upper_quartile=1.75), SKIP: UNSTABLE})

    output = run("lut", "show", plane.add_table(document)).stdout

    assert "device          a processor" in output
    assert "resolution      64x128" in output
    assert f"{CONV} 1.5000 1.2500 1.7500 5" in " ".join(output.split())
    assert "quarantined: unstable" in output


def test_show_selects_rows_by_their_key(run: Run) -> None:
    output = run("lut", "show", TABLE_ID, "--key", "skip").stdout

    assert SKIP in output
    assert CONV not in output


def test_a_table_is_found_by_the_first_digits_of_its_id(run: Run) -> None:
    assert run("lut", "show", TABLE_ID[:8]).exit_code == 0


def test_a_table_in_a_file_is_shown_without_the_service(run: Run, tmp_path: Path) -> None:
    result = run("lut", "show", a_file(tmp_path / "t.json", TABLE_DOCUMENT), "--url", "http://127.0.0.1:1")

    assert (result.exit_code, CONV in result.stdout) == (0, True)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("table", "'table' is neither a latency table's id nor a file"),
        ("0" * 8, "no latency table's id begins with 00000000"),
    ],
)
def test_a_table_that_is_not_there_is_wrong_usage(run: Run, name: str, complaint: str) -> None:
    result = run("lut", "show", name)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "fasterseg lut list" in result.stderr


def test_an_unknown_id_is_a_failure(run: Run) -> None:
    result = run("lut", "show", "0" * 64)

    assert (result.exit_code, "there is no latency table 000" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[]", "not a JSON object"), ("{}", "no latency table: fingerprint: Field required")],
)
def test_a_file_that_is_no_table_is_wrong_usage(run: Run, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "t.json").write_text(content)

    result = run("lut", "show", str(tmp_path / "t.json"))

    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())


# ---- diff ----


def test_diff_names_fields_that_differ_rows_of_one_and_ratios(plane: FakeControlPlane, run: Run) -> None:
    stem, zoomed = "stem 3->64 64x128 /8", "zoomed_conv 64->64 8x16 /1"
    other = plane.add_table(a_table_document({CONV: a_row(3.0), SKIP: a_row(0.5), stem: a_row()}, driver="2"))
    first = plane.add_table(a_table_document({CONV: a_row(1.5), SKIP: a_row(0.5), zoomed: a_row()}))

    result = run("lut", "diff", first, other)

    lines = [line.strip() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines[:2] == ["FINGERPRINT  A     B", "driver       none  2"]
    assert lines[2:6] == ["only in A: 1 rows", zoomed, "only in B: 1 rows", stem]
    assert lines[6:8] == ["measured in both: 2 rows", "B takes 1.500 times as long as A (median)"]
    assert [line.split()[-3:] for line in lines[9:]] == [["1.5000", "3.0000", "2.000"], ["0.5000", "0.5000", "1.000"]]


def test_diff_shows_the_ten_rows_that_are_farthest_from_equal(run: Run, tmp_path: Path) -> None:
    keys = [f"conv 64->{width} 8x16 /1" for width in range(1, 13)]
    one = a_file(tmp_path / "a.json", a_table_document({key: a_row(1.0) for key in keys}))
    other = a_file(tmp_path / "b.json", a_table_document({key: a_row(1 / (n + 1)) for n, key in enumerate(keys)}))

    output = run("lut", "diff", one, other).stdout

    assert "one fingerprint" in output
    assert [key for key in keys if key in output] == keys[2:]


def test_diff_takes_no_ratio_of_a_quarantined_row(run: Run, tmp_path: Path) -> None:
    other = a_file(tmp_path / "b.json", a_table_document({CONV: a_row(1.5), SKIP: UNSTABLE}))

    assert "measured in both: 1 rows; 1 more are quarantined or cost 0 ms" in run("lut", "diff", TABLE_ID, other).stdout


# ---- verify ----


def test_a_sound_table_is_verified(run: Run) -> None:
    result = run("lut", "verify", TABLE_ID)

    assert (result.exit_code, result.stdout) == (0, f"latency table {TABLE_ID}: no faults\n")


def test_a_table_that_is_not_of_its_id_is_a_fault(plane: FakeControlPlane, run: Run) -> None:
    plane.latency_tables[TABLE_ID] = a_table_document(device="another")

    result = run("lut", "verify", TABLE_ID)

    assert result.exit_code == 1
    assert f"digest: {TABLE_ID} was asked for" in result.stderr


def test_a_file_is_held_against_the_digest_in_its_name(run: Run, tmp_path: Path) -> None:
    sound = run("lut", "verify", a_file(tmp_path / f"{TABLE_ID}.json", TABLE_DOCUMENT))
    other = run("lut", "verify", a_file(tmp_path / f"{'0' * 64}.json", TABLE_DOCUMENT))

    assert (sound.exit_code, other.exit_code) == (0, 1)
    assert f"digest: {'0' * 64} was asked for, the content has {TABLE_ID}" in other.stderr


def test_verify_names_every_fault(run: Run, tmp_path: Path) -> None:
    rows = {CONV: a_row(float("nan")), SKIP: UNSTABLE, "conv 064->64 8x16 /1": a_row()}

    result = run("lut", "verify", a_file(tmp_path / "t.json", a_table_document(rows)))

    assert result.exit_code == 1
    assert [line.partition("':")[0] for line in result.stderr.splitlines()] == [
        "row 'conv 064->64 8x16 /1",
        f"row '{CONV}",
        f"row '{SKIP}",
    ]
    assert result.stdout.endswith(": 3 faults\n")


# ---- export, add ----


def test_an_exported_file_has_the_tables_id_as_its_sha256(run: Run, tmp_path: Path) -> None:
    result = run("lut", "export", TABLE_ID[:10], "-o", str(tmp_path / "t.json"))

    assert result.exit_code == 0
    assert hashlib.sha256((tmp_path / "t.json").read_bytes()).hexdigest() == TABLE_ID


def test_export_without_a_file_prints_the_canonical_json(run: Run) -> None:
    assert hashlib.sha256(run("lut", "export", TABLE_ID).stdout.encode()).hexdigest() == TABLE_ID


def test_a_table_that_is_not_of_its_id_is_not_exported(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    plane.latency_tables[TABLE_ID] = a_table_document(device="another")

    result = run("lut", "export", TABLE_ID, "-o", str(tmp_path / "t.json"))

    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])


def test_export_to_a_folder_that_is_not_there_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run("lut", "export", TABLE_ID, "-o", str(tmp_path / "none" / "t.json"))

    assert (result.exit_code, "No such file or directory" in result.stderr) == (2, True)


def test_a_table_is_added_and_its_id_printed(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    document = a_table_document(device="GTX 1080 Ti")

    result = run("lut", "add", a_file(tmp_path / "t.json", document))

    assert (result.exit_code, result.stdout.strip() in plane.latency_tables) == (0, True)
    assert plane.latency_tables[result.stdout.strip()] == document


def test_parts_are_merged_and_added(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    parts = [a_table_document({key: a_row()}) for key in (CONV, SKIP)]

    result = run("lut", "merge", *(a_file(tmp_path / f"{i}.json", part) for i, part in enumerate(parts)))

    assert result.exit_code == 0
    assert plane.latency_tables[result.stdout.strip()] == a_table_document({CONV: a_row(), SKIP: a_row()})


def test_tables_of_different_devices_are_not_merged(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    result = run("lut", "merge", TABLE_ID, a_file(tmp_path / "t.json", a_table_document(device="GTX 1080 Ti")))

    assert (result.exit_code, len(plane.latency_tables)) == (2, 1)
    assert "has another fingerprint than the first: device GTX 1080 Ti, not " in " ".join(result.stderr.split())


def test_a_table_can_be_added_from_standard_input(plane: FakeControlPlane, run: Run) -> None:
    assert run("lut", "add", "-", stdin=json.dumps(TABLE_DOCUMENT)).stdout == f"{TABLE_ID}\n"


def test_what_is_no_json_is_not_sent(plane: FakeControlPlane, run: Run) -> None:
    result = run("lut", "add", "-", stdin="[]")

    assert (result.exit_code, plane.requests) == (2, [])
