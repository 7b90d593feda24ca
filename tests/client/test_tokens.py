"""Which token the client shows, and the commands that make, list and revoke tokens."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.client.cli import app
from services.client.client import FasterSegClient
from services.client.credentials import LOCAL_FILE, TOKEN, TOKEN_FILE, FoundToken, find_token
from services.client.schemas import Problem, TokenPage
from tests.client.conftest import Run
from tests.client.fake_control_plane import FakeControlPlane, problem_answer

HERE, AWAY = "http://127.0.0.1:8000", "https://fasterseg.example"


@pytest.fixture(autouse=True)
def a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty one to work in, and an environment without a token."""
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.delenv(TOKEN_FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_local_service(folder: Path) -> None:
    file = folder / LOCAL_FILE
    file.parent.mkdir()
    file.write_text("of this machine\n")


def test_without_any_none_is_shown(plane: FakeControlPlane) -> None:
    with FasterSegClient(plane.url) as client:
        client.health()

    assert plane.shown == [None]


def test_the_one_that_is_given_is_shown(plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "of the environment")

    with FasterSegClient(plane.url, token="given") as client:  # and not that of the environment
        client.health()

    assert plane.shown == ["Bearer given"]


def test_the_end_of_a_files_line_is_no_part_of_a_token(plane: FakeControlPlane) -> None:
    with FasterSegClient(plane.url, token="given\n") as client:
        client.health()

    assert plane.shown == ["Bearer given"]


def test_the_command_shows_the_environments(plane: FakeControlPlane, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "of the environment")

    run("token", "list")

    assert plane.shown == ["Bearer of the environment"]


def test_the_environments_comes_before_files(monkeypatch: pytest.MonkeyPatch, a_folder: Path) -> None:
    a_local_service(a_folder)
    (a_folder / "file").write_text("of a file\n")
    monkeypatch.setenv(TOKEN_FILE, str(a_folder / "file"))
    assert find_token(AWAY) == FoundToken(secret="of a file", place=str(a_folder / "file"))

    monkeypatch.setenv(TOKEN, "of the environment")
    assert find_token(AWAY) == FoundToken(secret="of the environment", place=TOKEN)


def test_a_local_services_token_is_shown_to_this_machine_alone(a_folder: Path) -> None:
    a_local_service(a_folder)

    found = FoundToken(secret="of this machine", place=str(LOCAL_FILE))
    assert (find_token(HERE), find_token("http://localhost:1234")) == (found, found)
    assert find_token(AWAY) is None


def test_a_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv(TOKEN_FILE, "nowhere")

    with pytest.raises(FileNotFoundError):
        find_token(HERE)
    result = run("token", "list")
    assert (result.exit_code, "nowhere" in result.stderr) == (2, True)


def test_a_refusal_says_where_the_token_came_from(
    plane: FakeControlPlane, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "revoked")
    plane.refusals["GET /tokens"] = problem_answer(Problem(title="Not authorized", status=401, detail="no such token"))

    result = run("token", "list")

    assert result.stderr == f"401 Not authorized: no such token\nthe token shown is that of {TOKEN}\n"


def test_a_token_is_made_and_its_secret_alone_printed(plane: FakeControlPlane, run: Run) -> None:
    result = run("token", "create", "release gate", "--scope", "read", "--days", "30")

    assert (result.exit_code, result.stdout) == (0, "a new secret\n")
    (token,) = plane.tokens.values()
    assert (token.name, token.scope, token.expires_at is not None) == ("release gate", "read", True)


def test_a_token_whose_answer_is_lost_is_not_made_twice(plane: FakeControlPlane, run: Run) -> None:
    plane.lost_replies = 1

    result = run("token", "create", "release gate")

    assert (result.exit_code, plane.requests) == (3, ["POST /tokens"])


@pytest.mark.parametrize("token", ["\xe4", "two\nlines", " "])
def test_what_can_be_no_token_is_wrong_usage(
    plane: FakeControlPlane, run: Run, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv(TOKEN, token)

    result = run("list")

    assert (result.exit_code, plane.requests) == (2, [])
    assert f"{TOKEN} holds no token" in result.stderr
    assert token == " " or token not in result.stderr


def test_ids_are_whole_in_a_narrow_terminal(plane: FakeControlPlane, run: Run) -> None:
    run("token", "create", "release gate", "--days", "90")
    (token_id,) = plane.tokens

    listed = CliRunner().invoke(app, ["token", "list"], env={"FASTERSEG_URL": plane.url, "COLUMNS": "60"})

    assert token_id in listed.stdout


def test_tokens_are_listed_and_revoked(plane: FakeControlPlane, run: Run) -> None:
    run("token", "create", "release gate")
    (token_id,) = plane.tokens

    listed = run("token", "list")
    assert (token_id in listed.stdout, "never" in listed.stdout, "revoked" in listed.stdout) == (True, True, False)
    assert "oidc:ana" in listed.stdout
    assert run("token", "revoke", token_id).exit_code == 0

    assert "revoked" in run("token", "list").stdout
    (shown,) = TokenPage.model_validate_json(run("token", "list", "--json").stdout).items
    assert shown.revoked_at is not None


def test_a_name_that_cannot_be_is_a_usage_error(run: Run) -> None:
    result = run("token", "create", "!")

    assert result.exit_code == 2
    assert "name" in result.stderr
