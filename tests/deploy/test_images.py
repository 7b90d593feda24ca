"""What each image installs and starts, tried in a clean environment: no container can be run here."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

from services.embedded.ray_head import TORCH_ENVIRONMENT, free_port

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def instructions(dockerfile: Path) -> list[str]:
    return [line.strip() for line in dockerfile.read_text().replace("\\\n", " ").splitlines()]


def copied(dockerfile: Path) -> set[str]:
    """What an image takes from the repository."""
    lines = [line.split()[1:-1] for line in instructions(dockerfile) if re.match(r"COPY (?!--from)", line)]
    return {name for names in lines for name in names}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_base_is_pinned(dockerfile: Path) -> None:
    bases = [line.split()[1] for line in instructions(dockerfile) if line.startswith("FROM ")]

    assert bases
    assert [base for base in bases if not re.search(r":\d+\.\d+\.\d+-", base)] == []


@pytest.mark.parametrize("name", ["ray", "profiler"])
def test_workers_in_images_run_torch_as_the_embedded_ones_do(name: str) -> None:
    settings = {
        setting
        for line in instructions(ROOT / "docker" / f"{name}.Dockerfile")
        if line.startswith("ENV ")
        for setting in line.split()[1:]
    }

    assert {f"{key}={value}" for key, value in TORCH_ENVIRONMENT.items()} <= settings


def test_every_image_has_the_same_python() -> None:
    final = {re.findall(r"^FROM (python:\S+)", path.read_text(), re.MULTILINE)[-1] for path in DOCKERFILES}

    assert len(final) == 1


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_everything_copied_exists_and_is_sent_to_the_builder(dockerfile: Path) -> None:
    sent = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

    assert copied(dockerfile) <= sent
    assert [name for name in copied(dockerfile) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_packages_are_installed_by_the_pinned_versions(dockerfile: Path) -> None:
    installs = [line for line in instructions(dockerfile) if re.search(r"pip (install|wheel)", line)]

    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)


def test_the_api_starts_where_only_its_packages_are() -> None:
    heavy = ("torch", "torchvision", "numpy", "onnx", "onnxruntime", "openvino", "matplotlib", "PIL", "pandas")
    program = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); import services.control_plane.__main__"

    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr


# ---- minutes long: make test-images ---------------------------------------------------------------------------------


def installed(dockerfile: Path, folder: Path) -> Path:
    """The folder of the programs of a clean environment in which an image's packages were installed."""
    venv.create(folder, with_pip=True)
    context = folder / "context"
    context.mkdir()
    for name in copied(dockerfile):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, context / name)
    (line,) = [line for line in instructions(dockerfile) if "pip install" in line]
    arguments = shlex.split(line.split("pip install", 1)[1])
    subprocess.run([folder / "bin/pip", "install", "--quiet", *arguments], cwd=context, check=True)
    return folder / "bin"


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_the_api_image_serves(tmp_path: Path) -> None:
    programs = installed(ROOT / "docker/control-plane.Dockerfile", tmp_path / "venv")
    port = free_port()
    env = os.environ | {
        "FASTERSEG_PORT": str(port),
        "FASTERSEG_STATE_FOLDER": str(tmp_path),
        "FASTERSEG_PROFILER_TOKEN": "what the profiler and it share",
    }
    command = [programs / "python", "-m", "services.control_plane"]

    with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
        transport = httpx.HTTPTransport(retries=12)  # with growing delays, while it starts
        with httpx.Client(transport=transport, timeout=60) as client:
            health = client.get(f"http://127.0.0.1:{port}/api/v1/health").json()
        process.terminate()

    assert (health["database"], health["store"]) == ("ok", "ok")


@pytest.mark.image
@pytest.mark.timeout(1800)
def test_the_ray_image_runs_jobs(tmp_path: Path) -> None:
    programs = installed(ROOT / "docker/ray.Dockerfile", tmp_path / "venv")
    modules = "services.workers.driver, services.workers.execution, services.profiler.__main__"

    subprocess.run([programs / "python", "-c", f"import {modules}"], cwd=tmp_path, check=True)
    subprocess.run([programs / "ray", "--version"], check=True)
