"""What outsiders install: the wheel `fasterseg_client`, built from a copy of services/client."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

SOURCE = Path(__file__).parents[2] / "services" / "client"
CALL_CLI = "from fasterseg_client.cli import app; app()"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the contents of the wheel, and no `services`."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, folder / "source"], check=True
    )
    (wheel,) = folder.glob("fasterseg_client-*.whl")
    with ZipFile(wheel) as files:
        files.extractall(folder / "installed")
    return folder / "installed"


def python(*arguments: str, path: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python on these folders and the installed packages, but not on this checkout (-S: no .pth file names it)."""
    environment = {"PYTHONPATH": ":".join(map(str, [*path, sysconfig.get_path("purelib")]))}
    return subprocess.run(
        [sys.executable, "-P", "-S", "-W", "error", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A folder with a service that prints its arguments and ends with exit code 3."""
    package = tmp_path / "services" / "embedded"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\nsys.exit(3)\n")
    return tmp_path


def test_the_wheel_holds_the_client_and_its_command(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")

    assert "fasterseg = fasterseg_client.cli:app" in entry_points.read_text()
    assert (installed / "fasterseg_client" / "py.typed").exists()


def test_the_wheel_imports(installed: Path, tmp_path: Path) -> None:
    code = "import fasterseg_client.client, fasterseg_client.attempt; print(fasterseg_client.client.__file__)"

    result = python("-c", code, path=[installed], cwd=tmp_path)

    assert (result.stdout.strip(), result.stderr) == (str(installed / "fasterseg_client" / "client.py"), "")


def test_the_client_alone_says_what_to_install_to_start_the_service(installed: Path, tmp_path: Path) -> None:
    result = python("-c", CALL_CLI, "up", "--help", path=[installed], cwd=tmp_path)

    assert (result.returncode, result.stdout) == (1, "")
    assert 'pip install -e ".[server,worker]"' in result.stderr


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_commands_of_the_service_are_handed_to_it(installed: Path, embedded: Path, command: str) -> None:
    result = python("-c", CALL_CLI, command, "--help", "--port", "0", path=[installed, embedded], cwd=embedded)

    assert (result.returncode, result.stdout) == (3, f"{command} --help --port 0\n")


@pytest.mark.parametrize("group", ["arch", "lut"])
def test_published_files_are_handed_to_the_core(installed: Path, tmp_path: Path, group: str) -> None:
    core = tmp_path / "fasterseg_core"
    core.mkdir()
    (core / "__init__.py").touch()
    (core / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\nsys.exit(3)\n")

    result = python("-c", CALL_CLI, group, "import", "FILE", "--help", path=[installed, tmp_path], cwd=tmp_path)

    assert (result.returncode, result.stdout) == (3, f"{group} import FILE --help\n")
