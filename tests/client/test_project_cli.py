"""The commands that show and limit what a project's jobs use."""

import pytest

from services.client.schemas import ProjectPage, ProjectRecord
from tests.client.conftest import Run
from tests.client.fake_control_plane import FakeControlPlane, a_plan, a_project


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_project_is_shown(plane: FakeControlPlane, run: Run) -> None:
    assert lines(run("project", "show", "default").stdout) == ["project default", "hours 1.25 used, no limit"]

    plane.projects["maps"] = a_project(name="maps", max_hours=20, left_hours=18.75)

    assert lines(run("project", "show", "maps").stdout)[1] == "hours 1.25 of 20 used, 18.75 left"
    shown = ProjectRecord.model_validate_json(run("project", "show", "maps", "--json").stdout)
    assert shown == plane.projects["maps"]


def test_hours_of_a_large_project_are_shown_to_their_last_digit(plane: FakeControlPlane, run: Run) -> None:
    plane.projects["maps"] = a_project(name="maps", max_hours=1_500_000, used_hours=1_234_567.25, left_hours=265_432.75)

    assert lines(run("project", "show", "maps").stdout)[1] == "hours 1234567.25 of 1500000 used, 265432.75 left"


def test_projects_are_listed(plane: FakeControlPlane, run: Run) -> None:
    plane.projects["maps"] = a_project(name="maps", max_hours=20, left_hours=18.75)

    printed = lines(run("project", "list").stdout)

    assert printed == ["default 1.25 used, no limit", "maps 1.25 of 20 used, 18.75 left"]
    listed = ProjectPage.model_validate_json(run("project", "list", "--json").stdout)
    assert listed.items == list(plane.projects.values())


def test_a_limit_is_set_and_taken_away(plane: FakeControlPlane, run: Run) -> None:
    assert lines(run("project", "limit", "maps", "--max-hours", "500").stdout)[1] == "hours 0 of 500 used, 500 left"
    assert plane.projects["maps"].max_hours == 500

    assert run("project", "limit", "maps", "--max-hours", "inf").exit_code == 0
    assert plane.projects["maps"].max_hours is None


@pytest.mark.parametrize("options", [[], ["--max-hours", "-1"], ["--max-hours", "nan"], ["--max-hours", "many"]])
def test_hours_that_cannot_be_are_wrong_usage(plane: FakeControlPlane, run: Run, options: list[str]) -> None:
    result = run("project", "limit", "maps", *options)

    assert (result.exit_code, plane.requests) == (2, [])
    assert "max" in result.stderr


def test_a_plan_names_the_project_and_what_it_has_left(plane: FakeControlPlane, run: Run) -> None:
    plane.plan = a_plan(project=a_project(name="maps", max_hours=2, used_hours=1.5, left_hours=0.5))

    printed = lines(run("submit", "search", "--plan").stdout)

    assert "project hours 1.5 of 2 used, 0.5 left (maps)" in printed
