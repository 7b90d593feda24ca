import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from fasterseg_core.architecture import TABLE_7
from fasterseg_core.config import Role
from fasterseg_core.latency import balanced_weights, relaxed_latency, sensitivities, space_latency
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, estimate
from fasterseg_core.operator_specs import OperatorSpec, Structure, architecture_specs, space_specs, stem_spec
from fasterseg_core.published import read_latency_table, read_relaxation, with_free_resizing
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import OPERATORS, Operator, Resolution, SearchSpace
from tests.builders import a_published_search, a_relaxation
from tests.rows import HOSTILE

REAL = Path(__file__).parents[3] / "shared" / "data" / "fasterseg-official" / "latency_lookup_table_1080ti.npy"
FORMATS = {"zip": True, "legacy": False}


class Intruder:
    def __reduce__(self):
        return print, ("code of a file ran",)


# ---- alpha, beta, gamma ----


def saved(path, content, *, as_zip=True):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    return path


@pytest.mark.parametrize("as_zip", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("role", Role)
def test_a_search_is_read_as_it_was_saved(tmp_path, role, as_zip):
    relaxation = a_relaxation(SearchSpace(num_layers=9), role)
    content = a_published_search(relaxation, index=0 if role is Role.TEACHER else 1)

    read = read_relaxation(saved(tmp_path / "arch.pt", content, as_zip=as_zip))

    assert (read.role, read.space) == (role, relaxation.space)
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in relaxation.state_dict().items())


def test_a_teachers_widths_have_one_choice_the_widest(tmp_path):
    content = a_published_search(a_relaxation(SearchSpace(), Role.TEACHER), index=0)

    teacher = read_relaxation(saved(tmp_path / "arch_0.pt", content))

    assert (teacher.role, teacher.ratios, teacher.end_ratio) == (Role.TEACHER, (12,), 12)


def test_columns_of_alpha_are_put_in_this_projects_order(tmp_path):
    content = a_published_search(Relaxation(SearchSpace(), Role.STUDENT))
    with torch.no_grad():
        content["alpha_1_0"][0] = torch.tensor([0.0, 1, 2, 3, 4])  # skip, conv, zoomed conv, conv x2, zoomed conv x2

    alpha = read_relaxation(saved(tmp_path / "arch_1.pt", content)).alpha["8"]

    assert dict(zip(OPERATORS, alpha[0].tolist(), strict=True)) == {
        Operator.SKIP: 0,
        Operator.CONV: 1,
        Operator.ZOOMED_CONV: 2,
        Operator.CONV_X2: 3,
        Operator.ZOOMED_CONV_X2: 4,
    }


@HOSTILE
@pytest.mark.parametrize("as_zip", FORMATS.values(), ids=FORMATS)
def test_a_search_that_carries_code_is_refused_by_name_and_not_run(tmp_path, capsys, as_zip):
    content = {**a_published_search(a_relaxation(SearchSpace())), "mIoU02": Intruder()}

    with pytest.raises(ValueError, match=r"arch_1\.pt is refused: it names \S*print"):
        read_relaxation(saved(tmp_path / "arch_1.pt", content, as_zip=as_zip))

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 no archive"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "arch_1.pt").write_bytes(content)

    with pytest.raises(ValueError, match=r"arch_1\.pt is refused: not a file of torch\.save"):
        read_relaxation(tmp_path / "arch_1.pt")


def test_scalars_that_are_missing_or_misshapen_are_named(tmp_path):
    content = a_published_search(a_relaxation(SearchSpace()))
    fewer = {name: value for name, value in content.items() if name != "beta_1_2"}
    narrow = {**content, "ratio_1_1": torch.zeros(15, 3)}
    infinite = {**content, "beta_1_1": torch.full((14, 2), torch.nan)}

    for wrong, message in (
        (fewer, "lacks beta_1_2"),
        (narrow, r"gamma at s = 16 is \(15, 3\), a student of 16 layers has \(15, 5\)"),
        (infinite, "beta at s = 16 is not finite"),
        ({}, "no alpha_<n>_0 among its 0 tensors"),
        ([1], "holds a list"),
    ):
        with pytest.raises(ValueError, match=message):
            read_relaxation(saved(tmp_path / "arch_1.pt", wrong))


# ---- the latency table ----

NAMES = {
    Operator.SKIP: "FactorizedReduce",
    Operator.CONV: "BasicResidual1x",
    Operator.CONV_X2: "BasicResidual2x",
    Operator.ZOOMED_CONV: "BasicResidual_downup_1x",
    Operator.ZOOMED_CONV_X2: "BasicResidual_downup_2x",
}
SPACE = SearchSpace(num_layers=4, expansion_ratios=(2, 3), student_ratio=2)
RESOLUTION = Resolution(height=64, width=128)


def published_keys(space=SPACE, resolution=RESOLUTION, num_classes=19):
    """The keys that the published code writes of a space, and the operators that they time."""
    keys = {}
    for spec in space_specs(space, resolution, num_classes):
        size, channels = f"H{spec.height}_W{spec.width}", f"Cin{spec.c_in}_Cout{spec.c_out}"
        match spec.operator:
            case Structure.STEM:
                half, full, (height, width) = spec.c_out // 2, spec.c_out, (spec.height, spec.width)
                first = f"ConvNorm_{size}_Cin3_Cout{half}_kernel3_stride2"
                second = f"BasicResidual2x_H{height // 2}_W{width // 2}_Cin{half}_Cout{full}_stride2_dilation1"
                third = f"BasicResidual2x_H{height // 4}_W{width // 4}_Cin{full}_Cout{full}_stride2_dilation1"
                keys |= {first: None, second: None, third: None}
            case Structure.POINTWISE if spec.c_in == spec.c_out:
                keys[f"ff_{size}_C{spec.c_in}"] = spec
            case Structure.POINTWISE:
                keys[f"ConvNorm_{size}_{channels}_kernel1_stride1"] = spec
            case Structure.PREDICTION:
                keys[f"head_{size}_{channels}"] = spec
            case Operator():
                tail = "" if spec.operator is Operator.SKIP else "_dilation1"
                keys[f"{NAMES[spec.operator]}_{size}_{channels}_stride{spec.stride}{tail}"] = spec
    return keys


def written(path, entries):
    np.save(path, entries, allow_pickle=True)
    return path


def a_published_table(path, **changes):
    """Every entry takes its place among the keys in milliseconds."""
    return written(path, {key: float(ms) for ms, key in enumerate(published_keys(), start=1)} | changes)


def test_every_published_key_is_the_operator_that_it_timed(tmp_path):
    keys = published_keys()

    published = read_latency_table(a_published_table(tmp_path / "table.npy"))

    assert published.left_out == {}
    for milliseconds, spec in enumerate(keys.values(), start=1):
        if spec is not None:
            assert published.table.milliseconds(spec) == milliseconds
    fingerprint = published.table.fingerprint
    assert (fingerprint.resolution, fingerprint.num_classes) == (RESOLUTION, 19)
    assert (fingerprint.engine, fingerprint.device, fingerprint.interpolation) == ("tensorrt", "GTX 1080 Ti", "nearest")


def test_a_stem_is_the_sum_of_its_three_entries(tmp_path):
    table = read_latency_table(a_published_table(tmp_path / "table.npy")).table

    assert [table.milliseconds(stem_spec(ratio, RESOLUTION)) for ratio in (2, 3)] == [1 + 2 + 3, 4 + 5 + 6]


def test_a_stem_that_lacks_an_entry_is_missing(tmp_path):
    stem = "BasicResidual2x_H32_W64_Cin8_Cout16_stride2_dilation1"
    entries = {key: 1.0 for key in published_keys() if key != stem}

    table = read_latency_table(written(tmp_path / "table.npy", entries)).table

    with pytest.raises(MissingLatencyError, match="stem 3->16 64x128 /8"):
        table.milliseconds(stem_spec(2, RESOLUTION))


def test_what_the_format_lacks_is_missing_unless_it_is_asked_to_cost_nothing(tmp_path):
    table = read_latency_table(a_published_table(tmp_path / "table.npy")).table

    missing = table.missing(space_specs(SPACE, RESOLUTION, 19))
    free = with_free_resizing(table, SPACE)

    assert {spec.operator for spec in missing} == {Structure.UPSAMPLE, Structure.CONCAT}
    assert {free.milliseconds(spec) for spec in missing} == {0}
    assert free.missing(space_specs(SPACE, RESOLUTION, 19)) == []
    assert free.fingerprint.digest != table.fingerprint.digest
    assert LatencyTable.from_document(free.to_document()) == free


def test_a_shape_timed_twice_keeps_the_heads_own_time(tmp_path):
    cell = "BasicResidual1x_H8_W16_Cin32_Cout16_stride1_dilation1"
    head = "ConvNorm_H8_W16_Cin32_Cout16_kernel3_stride1"

    published = read_latency_table(a_published_table(tmp_path / "table.npy", **{cell: 90.0, head: 91.0}))

    assert published.table.milliseconds(OperatorSpec.from_key("conv 32->16 8x16 /1")) == 91
    assert published.left_out == {cell: "conv 32->16 8x16 /1 measured again; the head's own measurement is kept"}


@pytest.mark.parametrize(
    "key",
    [
        "head_H8_W16_Cin288_Cout19",  # 3x3 to 144 channels
        "ConvNorm_H8_W16_Cin16_Cout16_kernel5_stride1",
        "BasicResidual1x_H8_W16_Cin16_Cout16_stride1_dilation2",
        "stem_H64_W128_F12",
    ],
)
def test_a_key_of_no_operator_here_is_listed(tmp_path, key):
    published = read_latency_table(a_published_table(tmp_path / "table.npy", **{key: 1.0}))

    assert published.left_out.keys() == {key}


def as_npy(pickled):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    return buffer.getvalue() + pickled


@HOSTILE
@pytest.mark.parametrize(
    "content",
    [as_npy(pickle.dumps(Intruder())), as_npy(pickle.dumps({"head_H8_W16_Cin32_Cout19": Intruder()}))],
    ids=["instead", "inside"],
)
def test_a_table_that_carries_code_is_refused_by_name_and_not_run(tmp_path, capsys, content):
    (tmp_path / "table.npy").write_bytes(content)

    with pytest.raises(ValueError, match=r"table\.npy is refused: it names builtins\.print"):
        read_latency_table(tmp_path / "table.npy")

    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "one resolution and one number of classes are wanted"),
        ({"head_H8_W16_Cin32_Cout19": -1.0}, "is -1.0, not milliseconds"),
        ({"head_H8_W16_Cin32_Cout19": "fast"}, "is 'fast', not milliseconds"),
        ([1.0], r"refused: an array of float64 of shape \(1,\)"),
        (None, "holds a NoneType"),
    ],
)
def test_a_table_of_anything_else_is_refused(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        read_latency_table(written(tmp_path / "table.npy", entries))


def test_a_file_that_is_no_array_is_refused(tmp_path):
    (tmp_path / "table.npy").write_text("operator,ms")

    with pytest.raises(ValueError, match=r"table\.npy is refused: the magic string is not correct"):
        read_latency_table(tmp_path / "table.npy")


def test_a_search_can_run_on_a_table_of_the_published_format(tmp_path):
    table = read_latency_table(a_published_table(tmp_path / "table.npy")).table
    student = Relaxation(SPACE, Role.STUDENT)

    latency = space_latency(SPACE, student, with_free_resizing(table, SPACE))

    assert float(relaxed_latency(student.probabilities(), latency).detach()) > 0


# ---- the authors' own table ----


@pytest.fixture(scope="module")
def real():
    if not REAL.exists():
        pytest.skip(f"no published latency table at {REAL}")
    return read_latency_table(REAL)


def test_all_667_published_entries_are_accounted_for(real):
    with_rows = set(real.table.rows) - {stem_spec(ratio, real.table.fingerprint.resolution) for ratio in (8, 12)}

    assert len(with_rows) + len(real.left_out) == 667
    assert sorted(real.left_out) == [
        "BasicResidual1x_H128_W256_Cin96_Cout64_stride1_dilation1",
        "BasicResidual1x_H64_W128_Cin192_Cout128_stride1_dilation1",
        "head_H128_W256_Cin288_Cout19",
    ]


def test_it_covers_the_papers_space_but_for_upsampling_and_concatenation(real):
    fingerprint = real.table.fingerprint

    missing = real.table.missing(space_specs(SearchSpace(), fingerprint.resolution, fingerprint.num_classes))

    assert (fingerprint.resolution, fingerprint.num_classes) == (Resolution(height=1024, width=2048), 19)
    assert {spec.operator for spec in missing} == {Structure.UPSAMPLE, Structure.CONCAT}
    with pytest.raises(MissingLatencyError, match="upsample"):
        estimate(TABLE_7, real.table)


def test_table_7_takes_5_70_ms_on_it(real):
    table = with_free_resizing(real.table, SearchSpace())

    prediction = estimate(TABLE_7, table)

    parts = prediction.parts
    assert prediction.milliseconds == pytest.approx(5.70, abs=0.005)
    assert parts["stem"] == pytest.approx(2.134, abs=5e-4)
    assert parts["cells"] == pytest.approx(1.848, abs=5e-4)
    assert parts["aggregation"] + parts["prediction"] == pytest.approx(1.720, abs=5e-4)
    priced = [
        spec for _, spec in architecture_specs(TABLE_7, table.fingerprint.resolution, 19) if spec in real.table.rows
    ]
    assert prediction.milliseconds == pytest.approx(sum(real.table.milliseconds(spec) for spec in priced))


def test_table_2_on_it_is_9_46_and_0_71_and_4_05_ms(real):
    space = SearchSpace()
    student = Relaxation(space, Role.STUDENT)

    gaps = sensitivities(student, space_latency(space, student, with_free_resizing(real.table, space)))

    assert gaps == pytest.approx((9.46, 0.71, 4.05), abs=0.005)
    assert balanced_weights(gaps) == pytest.approx((0.060, 0.799, 0.141), abs=5e-4)


@pytest.mark.parametrize("content", [b"hello\n", b"\x80", b"PK\x03\x04rest", b"(dp0\n."])
@pytest.mark.parametrize("read", [read_relaxation, lambda path: read_latency_table(path, device="any")])
def test_whatever_a_file_holds_it_is_refused_by_name(tmp_path, read, content):
    path = tmp_path / "file.bin"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="file.bin"):
        read(path)
