import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.client.schemas import JobState, Limits, PlannedInput, PlannedPhase, PlannedRows, Problem
from tests.client.conftest import Run
from tests.client.fake_control_plane import (
    ARCHITECTURE_ID,
    TABLE_ID,
    FakeControlPlane,
    a_failed_job,
    a_job,
    a_plan,
    a_progress,
    an_artifact,
    an_estimate,
    link_to,
    problem_answer,
    unknown_field,
)


def test_submit_prints_the_id_alone(plane: FakeControlPlane, run: Run) -> None:
    result = run("submit", "search")

    assert (result.exit_code, result.stdout) == (0, f"{next(iter(plane.jobs))}\n")


def test_submit_sets_fields_of_the_spec(plane: FakeControlPlane, run: Run) -> None:
    spec = '{"space": {"num_layers": 16, "expansion_ratios": [4, 8]}, "seed": 1}'

    result = run(
        "submit", "search", "--spec", "-",
        "--set", "space.num_layers=6", "--set", "dataset=camvid", "--set", "crop.height=96",
        "--after", "0000000000aa", "--after", "0000000000bb", "--input", f"latency_table={TABLE_ID}",
        "--name", "small one",
        stdin=spec,
    )  # fmt: skip

    (submission,) = plane.submissions.values()
    assert result.exit_code == 0
    assert submission.spec == {
        "space": {"num_layers": 6, "expansion_ratios": [4, 8]},
        "seed": 1,
        "dataset": "camvid",
        "crop": {"height": 96},
    }
    assert submission.after == ["0000000000aa", "0000000000bb"]
    assert submission.inputs.latency_table == TABLE_ID
    assert submission.name == "small one"


def test_submit_reads_the_spec_from_a_file(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"seed": 3}')

    run("submit", "search", "--spec", str(spec))

    assert next(iter(plane.submissions.values())).spec == {"seed": 3}


@pytest.mark.parametrize(
    ("state", "exit_code"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 1), (JobState.CANCELLED, 1)]
)
def test_wait_exits_with_what_became_of_the_job(
    plane: FakeControlPlane, run: Run, state: JobState, exit_code: int
) -> None:
    job_id = plane.add(a_job(state=JobState.RUNNING, progress=a_progress()), a_job(state=state))

    result = run("wait", job_id)

    assert result.exit_code == exit_code
    assert "search  epoch 2/5  step 3/10" in result.stdout
    assert state in result.stdout


def test_wait_tells_the_whole_reason_of_a_failure(plane: FakeControlPlane, run: Run) -> None:
    result = run("wait", plane.add(a_failed_job("the crop is too small\nfor scale 32")))

    assert "failed (user_error): the crop is too small\nfor scale 32" in result.stderr


def test_wait_keeps_standard_output_for_json(plane: FakeControlPlane, run: Run) -> None:
    job_id = plane.add(a_failed_job())

    result = run("wait", job_id, "--json")

    assert (result.exit_code, json.loads(result.stdout)["state"]) == (1, "failed")


def test_submit_can_wait_for_the_end(plane: FakeControlPlane, run: Run) -> None:
    plane.fate = [JobState.FAILED]

    result = run("submit", "search", "--wait")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "000000000001",
        "search 000000000001    0%  queued",
        "search 000000000001    0%  failed",
    ]


def test_submit_can_plan_and_submits_nothing(plane: FakeControlPlane, run: Run) -> None:
    result = run("submit", "search", "--set", "seed=7", "--plan")

    assert (result.exit_code, plane.requests, plane.planned[0].spec) == (0, ["POST /plans"], {"seed": 7})
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["time", "10:16:40"] in lines
    assert ["memory", "9.50", "GB"] in lines
    assert "22,500 steps" in result.stdout
    assert "job 0000000000aa on a processor, 2 threads" in result.stdout


def test_a_plan_says_what_it_does_not_know_and_why(plane: FakeControlPlane, run: Run) -> None:
    nothing = dict.fromkeys(("seconds", "peak_memory_bytes", "job", "device"))
    estimate = an_estimate(**nothing, reason="no earlier search job has run: a short one measures it")
    plane.plan = a_plan(steps=None, phases=[PlannedPhase(name="search", steps=None)], estimate=estimate)

    printed = run("submit", "search", "--plan").stdout

    assert "an unknown number of steps" in printed
    assert "no earlier search job has run: a short one measures it" in printed
    assert "memory" not in printed


def test_a_plan_names_inputs_and_rows(plane: FakeControlPlane, run: Run) -> None:
    table = PlannedInput(name="latency_table", id=TABLE_ID, job=None, about="onnxruntime on a processor, fp32, 64x128")
    later = PlannedInput(name="architecture", id=None, job="0000000000aa", about=None)
    plane.plan = a_plan(
        inputs=[table, later], waits_for=["0000000000aa"], rows=PlannedRows(to_measure=1_200, taken_over=48)
    )

    printed = run("submit", "search", "--plan").stdout

    assert f"{TABLE_ID} (onnxruntime on a processor, fp32, 64x128)" in printed
    assert "to be made by job 0000000000aa" in printed
    assert "1,200 to measure, 48 are taken over" in printed


def test_a_plan_that_lacks_rows_is_a_failure(plane: FakeControlPlane, run: Run) -> None:
    plane.plan = a_plan(missing_rows=["conv a", "conv b", "conv c", "conv d", "conv e"])

    result = run("submit", "search", "--plan")

    assert result.exit_code == 1
    assert "conv a, conv b, conv c and 2 more: it would be refused" in result.stdout


def test_a_plan_as_json_is_the_plan(plane: FakeControlPlane, run: Run) -> None:
    assert type(plane.plan).model_validate_json(run("submit", "search", "--plan", "--json").stdout) == plane.plan


def test_a_refused_field_is_named(plane: FakeControlPlane, run: Run) -> None:
    plane.refusals["POST /jobs"] = unknown_field("spec.space.layers")

    result = run("submit", "search", "--set", "space.layers=6")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "spec.space.layers: unknown field; did you mean num_layers?" in result.stderr


def test_a_missing_job_is_a_failure(run: Run) -> None:
    result = run("show", "00000000none")

    assert (result.exit_code, result.stderr) == (1, "404 Not Found: there is no job 00000000none\n")


def test_an_unreachable_service_is_named_with_the_fix(plane: FakeControlPlane, run: Run) -> None:
    plane.away = True

    result = run("list")

    assert result.exit_code == 3
    assert f"cannot reach the FasterSeg service at {plane.url}" in result.stderr
    assert "fasterseg up" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["submit", "serch"], "'serch' is not one of"),
        (["submit", "search", "--set", "seed"], "'seed' is not NAME=VALUE"),
        (["submit", "search", "--set", "seed=1", "--set", "seed.low=2"], "seed is a value, not a group"),
        (["submit", "search", "--spec", "/does/not/exist.json"], "No such file or directory"),
        (["submit", "search", "--input", "table=1"], "table: Extra inputs are not permitted"),
        (["submit", "search", "--plan", "--wait"], "--plan submits nothing that could be waited for"),
        (["submit", "search", "--after", "x"], "after.0: must be 12 digits and small letters"),
        (["list", "--limit", "0"], "Input should be greater than or equal to 1"),
        (["list", "--url", "localhost:8000"], "'localhost:8000' is no address like http://127.0.0.1:8000"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_wrong_usage_is_explained(plane: FakeControlPlane, run: Run, arguments: list[str], complaint: str) -> None:
    result = run(*arguments)

    assert (result.exit_code, plane.requests) == (2, [])
    assert complaint in result.stderr


def test_a_spec_that_is_no_json_object_is_wrong_usage(plane: FakeControlPlane, run: Run) -> None:
    result = run("submit", "search", "--spec", "-", stdin="[1, 2]")

    assert (result.exit_code, plane.requests) == (2, [])
    assert "not a JSON object" in result.stderr


@pytest.mark.parametrize("command", [("submit", "search", "--spec"), ("arch", "add"), ("lut", "add")])
def test_a_file_that_is_no_text_is_wrong_usage(
    plane: FakeControlPlane, run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\x7fELF\xff\xfe")

    result = run(*command, str(file))

    assert (result.exit_code, plane.requests) == (2, [])
    assert "binary: not a JSON object" in result.stderr.replace("\n", "")


def test_list_shows_a_line_for_each_job(plane: FakeControlPlane, run: Run) -> None:
    plane.add(a_job(id="000000000001", name="small [/]", state=JobState.RUNNING, progress=a_progress()))
    plane.add(a_failed_job(id="000000000002"))

    header, first, second = run("list").stdout.splitlines()

    assert header.split() == ["ID", "KIND", "NAME", "CREATED", "STATE"]
    assert first.split()[:2] == ["000000000001", "search"]
    assert "search  epoch 2/5  step 3/10" in first
    assert "failed: resolution 64 x 64 is too small" in second


def test_list_shows_a_job_that_failed_without_a_word(plane: FakeControlPlane, run: Run) -> None:
    plane.add(a_failed_job(""))

    result = run("list")

    assert result.exit_code == 0
    assert "failed" in result.stdout


def test_list_selects_and_limits(plane: FakeControlPlane, run: Run) -> None:
    for number in range(3):
        plane.add(a_job(id=f"{number:012}", state=JobState.SUCCEEDED))
        plane.add(a_failed_job(id=f"{number + 3:012}"))

    result = run("list", "--state", "failed", "--kind", "search", "--limit", "2", "--json")

    assert [job["id"] for job in json.loads(result.stdout)] == ["000000000003", "000000000004"]


def test_show_tells_everything(plane: FakeControlPlane, run: Run) -> None:
    artifact = an_artifact("curves.png", b"png")
    job = a_job(
        state=JobState.SUCCEEDED,
        spec={"seed": 7},
        architectures={"student": TABLE_ID},
        artifacts=[artifact],
        result={"miou": 0.5},
    )

    result = run("show", plane.add(job))

    assert result.exit_code == 0
    for fact in (
        job.id,
        "succeeded",
        "created by            0000000token",
        '"seed": 7',
        f"architecture student  {TABLE_ID}",
        artifact.sha256,
        '{"miou": 0.5}',
    ):
        assert fact in result.stdout


def test_show_as_json_is_the_job(plane: FakeControlPlane, run: Run) -> None:
    job = a_failed_job()

    assert type(job).model_validate_json(run("show", plane.add(job), "--json").stdout) == job


def test_cancel_says_that_it_was_requested(plane: FakeControlPlane, run: Run) -> None:
    job_id = plane.add(a_job(state=JobState.RUNNING))

    assert run("cancel", job_id).stdout == f"search {job_id}: cancellation requested\n"


@pytest.mark.parametrize(
    ("state", "shown"), [(JobState.QUEUED, "paused"), (JobState.RUNNING, "running, to be paused")], ids=str
)
def test_a_job_is_paused_and_resumed(plane: FakeControlPlane, run: Run, state: JobState, shown: str) -> None:
    job_id = plane.add(a_job(state=state))

    assert run("pause", job_id).stdout == f"search {job_id}: {shown}\n"
    assert run("resume", job_id).stdout == f"search {job_id}: {state}\n"


def test_submit_gives_a_priority(plane: FakeControlPlane, run: Run) -> None:
    run("submit", "search", "--priority", "7")

    assert next(iter(plane.submissions.values())).priority == 7


def test_submit_gives_limits(plane: FakeControlPlane, run: Run) -> None:
    run("submit", "search", "--max-hours", "10", "--deadline", "2026-12-01T08:00+01:00")

    submission = next(iter(plane.submissions.values()))
    assert (submission.max_hours, submission.deadline) == (10, datetime(2026, 12, 1, 7, tzinfo=UTC))


def test_resume_raises_limits(plane: FakeControlPlane, run: Run) -> None:
    run("resume", plane.add(a_job()), "--max-hours", "20")

    assert plane.limits == Limits(max_hours=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--deadline", "2026-12-01"], "write date, time and zone, as in 2026-12-01T08:00:00Z"),
        (["--deadline", "2026-12-01T08:00"], "Input should have timezone info"),
        (["--max-hours", "0"], "max_hours: Input should be greater than 0"),
    ],
)
@pytest.mark.parametrize("command", [["submit", "search"], ["resume", "0000000000ab"]], ids=" ".join)
def test_a_limit_that_cannot_be_is_wrong_usage(
    plane: FakeControlPlane, run: Run, command: list[str], options: list[str], message: str
) -> None:
    result = run(*command, *options)

    assert (result.exit_code, plane.requests) == (2, [])
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_a_job_past_a_limit_is_shown_with_the_limit_and_what_it_used(plane: FakeControlPlane, run: Run) -> None:
    limit = "max_hours: 2.1 of 2 were used"
    deadline = datetime(2026, 12, 1, 8, tzinfo=UTC)
    job = a_job(paused=True, max_hours=2, used_hours=2.1, deadline=deadline, limit_reached=limit)

    lines = [" ".join(line.split()) for line in run("show", plane.add(job)).stdout.splitlines()]

    assert f"state paused: {limit}" in lines
    assert "used hours 2.1 of 2" in lines
    assert "deadline 2026-12-01 08:00:00 UTC" in lines
    assert "paused: max_hours:" in " ".join(run("list").stdout.split())


def test_cancel_that_comes_too_late_says_so(plane: FakeControlPlane, run: Run) -> None:
    finished = Problem(title="Conflict", status=409, detail="the job has succeeded")
    plane.refusals["POST /jobs/0000000000ab/cancel"] = problem_answer(finished)

    result = run("cancel", plane.add(a_job(state=JobState.SUCCEEDED)))

    assert (result.exit_code, result.stderr) == (1, "409 Conflict: the job has succeeded\n")


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_events_are_printed_one_a_line(plane: FakeControlPlane, run: Run, options: list[str]) -> None:
    job = plane.add(a_job(state=JobState.SUCCEEDED))

    lines = run("events", job, *options).stdout.splitlines()

    assert [json.loads(line)["sequence"] for line in lines] == [event.sequence for event in plane.events]


def test_logs_are_printed_as_they_are(plane: FakeControlPlane, run: Run) -> None:
    plane.logs = ["epoch 1 [bold]\nepoch 2"]

    assert run("logs", plane.add(a_job())).stdout == "epoch 1 [bold]\nepoch 2"


def test_the_log_of_an_earlier_attempt_is_printed(plane: FakeControlPlane, run: Run) -> None:
    plane.logs, plane.earlier_logs = ["again\n"], {1: "killed\n"}
    job_id = plane.add(a_job())

    assert run("logs", job_id, "--attempt", "1").stdout == "killed\n"
    assert "leave --follow out" in run("logs", job_id, "--follow", "--attempt", "1").stderr


@pytest.mark.parametrize("arguments", [["show", ""], ["cancel", "../tokens"], ["token", "revoke", "ABCDEFGHIJKL"]])
def test_what_is_no_id_is_a_usage_error(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)

    assert (result.exit_code, "an id must be 12 digits and small letters" in result.stderr) == (2, True)


def test_followed_logs_end_with_the_job(plane: FakeControlPlane, run: Run) -> None:
    plane.logs = ["one\n"]

    assert run("logs", "-f", plane.add(a_job(state=JobState.SUCCEEDED))).stdout == "one\n"


def test_fetch_prints_the_paths(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    plane.add_artifact(b"png")
    job_id = plane.add(a_job(artifacts=[an_artifact("curves.png", b"png")]))

    result = run("fetch", job_id, "-o", str(tmp_path / "out"))

    assert result.stdout == f"{tmp_path / 'out' / 'curves.png'}\n"
    assert (tmp_path / "out" / "curves.png").read_bytes() == b"png"


def test_fetch_follows_a_link_to_the_store(
    plane: FakeControlPlane, store: FakeControlPlane, run: Run, tmp_path: Path
) -> None:
    artifact = an_artifact("curves.png", b"png")
    plane.refusals[f"GET /artifacts/{artifact.sha256}"] = link_to(store, b"png")
    job_id = plane.add(a_job(artifacts=[artifact]))

    result = run("fetch", job_id, "-o", str(tmp_path / "out"))

    assert result.exit_code == 0
    assert (tmp_path / "out" / "curves.png").read_bytes() == b"png"


def test_fetch_to_a_folder_that_cannot_be_is_wrong_usage(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    result = run("fetch", plane.add(a_job()), "-o", str(tmp_path / "out"))

    assert (result.exit_code, "File exists" in result.stderr) == (2, True)


def test_fetch_refuses_a_corrupted_artifact(plane: FakeControlPlane, run: Run, tmp_path: Path) -> None:
    plane.artifacts[plane.add_artifact(b"png")] = b"pnG"
    job_id = plane.add(a_job(artifacts=[an_artifact("curves.png", b"png")]))

    result = run("fetch", job_id, "-o", str(tmp_path))

    assert (result.exit_code, list(tmp_path.iterdir())) == (1, [])
    assert "nothing of it was kept" in result.stderr


def an_architecture_file(path: Path, operator: str = "conv") -> str:
    cell = {"operator": operator, "downsample_rate": 8, "expansion_ratio": 2}
    path.write_text(json.dumps({"stem_ratio": 2, "branches": [[cell]]}))
    return str(path)


def test_architectures_in_files_are_compared_without_the_service(run: Run, tmp_path: Path) -> None:
    one, other = an_architecture_file(tmp_path / "a.json"), an_architecture_file(tmp_path / "b.json", "skip")

    result = run("arch", "diff", one, other, "--url", "http://127.0.0.1:1")

    assert result.exit_code == 0
    assert "conv           8->8   2x8=16  <>  skip           8->8   2x8=16" in result.stdout
    assert result.stdout.endswith("1 of 2 rows differ\n")


def test_an_architecture_of_the_service_is_compared_by_its_id(run: Run, tmp_path: Path) -> None:
    result = run("arch", "diff", ARCHITECTURE_ID, an_architecture_file(tmp_path / "a.json"))

    assert result.exit_code == 0, result.stderr
    assert "rows differ" in result.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is neither an architecture's id nor a file"),
        ("[]", "not a JSON object"),
        ("{}", "stem_ratio: Field req"),
    ],
)
def test_what_is_no_architecture_is_refused(run: Run, tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)

    result = run("arch", "diff", str(tmp_path / "a.json"), ARCHITECTURE_ID)

    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_an_architecture_is_added_and_its_id_printed(run: Run, tmp_path: Path) -> None:
    result = run("arch", "add", an_architecture_file(tmp_path / "a.json"))

    assert (result.exit_code, result.stdout) == (0, f"{ARCHITECTURE_ID}\n")
