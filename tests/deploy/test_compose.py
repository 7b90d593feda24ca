"""docker-compose.yml is what it should be: nothing here can run it."""

import re

import pytest

from services.control_plane.app import PREFIX
from services.control_plane.settings import Settings as ControlPlaneSettings
from services.profiler.settings import Settings as ProfilerSettings
from services.workers.settings import Settings as WorkerSettings
from tests.deploy.compose import COMPOSE, ROOT, SERVICES

ONE_SHOT = {"s3-folder"}
LASTING = sorted(SERVICES.keys() - ONE_SHOT)
OWN = sorted(name for name, service in SERVICES.items() if "build" in service)
OTHERS = sorted(SERVICES.keys() - OWN)


def dockerfile(service: str) -> str:
    return (ROOT / SERVICES[service]["build"]["dockerfile"]).read_text()


@pytest.mark.parametrize("name", LASTING)
def test_a_service_is_checked_for_health(name: str) -> None:
    assert "healthcheck" in SERVICES[name] or "\nHEALTHCHECK " in dockerfile(name)


def test_a_control_plane_is_healthy_though_other_parts_are_not() -> None:
    assert re.findall(r"http://127\.0\.0\.1:8000(\S+)'", dockerfile("control-plane")) == [f"{PREFIX}/health/live"]


@pytest.mark.parametrize("name", LASTING)
def test_a_service_runs_without_privileges(name: str) -> None:
    users = [SERVICES[name]["user"]] if name in OTHERS else re.findall(r"^USER (\S+)$", dockerfile(name), re.MULTILINE)

    assert users
    assert users[-1] not in ("root", "0", "0:0")
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_what_runs_as_root_ends_and_reaches_no_network(name: str) -> None:
    assert (SERVICES[name]["network_mode"], SERVICES[name]["restart"]) == ("none", "no")


@pytest.mark.parametrize("name", OTHERS)
def test_an_image_is_pinned(name: str) -> None:
    assert re.search(r":\D*\d+\.\d+|:RELEASE\.\d{4}-", SERVICES[name]["image"])


def test_only_the_api_and_the_dashboard_are_published_and_to_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"control-plane": ["127.0.0.1:8000:8000"], "ray-head": ["127.0.0.1:8265:8265"]}
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_what_a_service_waits_for_exists_and_is_waited_for_until_it_is_ready() -> None:
    awaited = [(other, how["condition"]) for s in SERVICES.values() for other, how in s.get("depends_on", {}).items()]

    assert {other for other, _ in awaited} <= SERVICES.keys()
    assert {condition for other, condition in awaited if other not in ONE_SHOT} == {"service_healthy"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_command_is_a_list_of_words(name: str) -> None:
    assert [word for word in SERVICES[name].get("command", []) if not isinstance(word, str)] == []


def test_no_secret_stands_in_the_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|ROOT_USER")
    values = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if secret.search(name)
    ]

    assert values
    assert [value for value in values if not value.startswith("${")] == []


def test_every_variable_is_explained_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    used |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    explained = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert explained - used == {"COMPOSE_PROFILES"}
    assert used <= explained


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("control-plane", [ControlPlaneSettings]),
        ("ray-head", [WorkerSettings]),
        ("ray-worker", [WorkerSettings]),
        ("profiler-cpu", [WorkerSettings, ProfilerSettings]),
        ("profiler-gpu", [WorkerSettings, ProfilerSettings]),
    ],
)
def test_a_process_knows_every_setting_that_it_is_given(name: str, settings: list[type]) -> None:
    known = {f"FASTERSEG_{field.upper()}" for cls in settings for field in cls.model_fields}  # type: ignore[attr-defined]
    given = {variable for variable in SERVICES[name]["environment"] if variable.startswith("FASTERSEG_")}

    assert given - known == set()


@pytest.mark.parametrize("name", [name for name in OWN if name != "control-plane"])
def test_every_ray_node_holds_the_same_token(name: str) -> None:
    assert SERVICES[name]["secrets"] == ["ray_token"]
    assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert "RAY_AUTH_MODE=token" in dockerfile(name)


@pytest.mark.parametrize("name", [name for name in OWN if name != "control-plane"])
def test_every_ray_node_of_a_machine_shares_the_folder_of_locks_and_may_write_there(name: str) -> None:
    assert SERVICES[name]["environment"]["FASTERSEG_LOCK_DIR"] == "/locks"
    assert "locks:/locks" in SERVICES[name]["volumes"]
    assert "install --directory --owner=fasterseg /locks\n" in dockerfile(name)  # its volume, too
