"""The house's rules: who may import whom, what modules are called, that versions are pinned."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("fasterseg_core", "services") for path in (ROOT / package).rglob("*.py"))
LIGHT = (
    "ablations",
    "architecture",
    "config",
    "drawing",
    "latency_calibration",
    "latency_table",
    "operator_specs",
    "search_space",
    "table_rows",
)

STANDARD_LIBRARY = {*sys.stdlib_module_names}
CLIENT = {"httpx", "pydantic", "pydantic_core", "typer", "rich"}
MAY_IMPORT = {  # of other people's
    "fasterseg_core": {"torch"},
    "fasterseg_core/checkpoint.py": {"torch", "safetensors"},
    "fasterseg_core/datasets": {"torch", "numpy", "PIL"},
    "fasterseg_core/figures.py": {"torch", "numpy", "matplotlib"},
    "fasterseg_core/published.py": {"torch", "numpy"},
    **{f"fasterseg_core/{name}.py": set() for name in LIGHT},
    "services/client": CLIENT,
    "services/storage": {"pydantic", "pydantic_core", "sqlalchemy", "alembic", "minio", "urllib3"},
    "services/control_plane": {
        "fastapi",
        "starlette",
        "pydantic",
        "pydantic_settings",
        "httpx",
        "uvicorn",
        "sqlalchemy",
    },
    "services/control_plane/identity_provider.py": {"jwt", "pydantic"},
    "services/control_plane/signing_keys.py": {"httpx", "jwt", "pydantic"},
    "services/control_plane/app.py": {"fastapi", "fastapi_offline", "prometheus_client", "starlette"},
    "services/control_plane/dispatcher.py": {"prometheus_client"},
    "services/control_plane/metrics.py": {"prometheus_client"},
    "services/control_plane/ray_jobs.py": {"httpx", "ray.exceptions", "ray.job_submission", "requests"},
    "services/profiler": {"torch", "numpy", "onnx", "onnxruntime", "openvino", "pydantic", "pydantic_settings"},
    "services/profiler/cuda_timing.py": {"pynvml"},
    "services/profiler/tensorrt_runner.py": {"torch", "numpy", "tensorrt", "pycuda"},
    "services/profiler/metrics.py": {"prometheus_client"},
    "services/profiler/serve_app.py": {"fastapi", "prometheus_client", "pydantic", "starlette"},
    "services/profiler/__main__.py": {"fastapi", "ray"},
    "services/workers": {"torch", "numpy", "pydantic", "pydantic_settings"},
    "services/workers/driver.py": {"ray"},
    "services/workers/metrics.py": {"ray"},
    "services/telemetry/logs.py": set(),
    "services/telemetry/requests.py": {"prometheus_client", "starlette"},
    "services/telemetry/settings.py": {"pydantic", "pydantic_settings"},
    "services/telemetry/traces.py": {"opentelemetry"},
    "services/embedded": {"httpx", "pydantic", "rich", "typer"},
}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, other people's by their full names, relative ones left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def allowance(path: Path) -> set[str]:
    """What the most specific rule for a file allows."""
    name = path.relative_to(ROOT).as_posix()
    return MAY_IMPORT[max((rule for rule in MAY_IMPORT if name.startswith(rule)), key=len)]


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name != "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_only_what_the_house_allows(path: Path) -> None:
    allowed = allowance(path) | STANDARD_LIBRARY | {"fasterseg_core", "services"}

    foreign = [name for name in imports(path) if name not in allowed and name.split(".")[0] not in allowed]

    assert foreign == []


def test_import_rules_hold() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "services/client").rglob("*.py")), ids=lambda p: p.name)
def test_the_client_imports_itself_relatively(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] in ("services", "fasterseg_core")] == []


def test_the_client_and_the_values_import_without_heavy_packages() -> None:
    modules = [f"fasterseg_core.{name}" for name in LIGHT] + [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "services/client").rglob("*.py")
        if path.name != "__main__.py"
    ]
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'ray', 'fastapi', 'sqlalchemy', 'numpy')))"

    result = subprocess.run(
        [sys.executable, "-c", f"{blocked}; import {', '.join(modules)}"], cwd=ROOT, capture_output=True, text=True
    )

    assert result.returncode == 0, result.stderr


def test_packages_are_empty() -> None:
    assert [path for path in SOURCES if path.name == "__init__.py" and path.read_text()] == []


def test_every_folder_is_a_package() -> None:
    assert [path for path in SOURCES if not (path.parent / "__init__.py").exists()] == []


def test_no_module_is_named_for_a_drawer() -> None:
    drawers = {
        "utils",
        "util",
        "common",
        "helpers",
        "helper",
        "manager",
        "managers",
        "handlers",
        "base",
        "registry",
        "misc",
    }

    assert [path for path in SOURCES if drawers & {path.stem, path.parent.name}] == []


def test_no_test_folder_hides_the_services() -> None:
    assert [path for path in (ROOT / "tests").rglob("services") if path.is_dir()] == []


def test_every_version_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []


def test_every_dependency_has_a_pinned_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    }
    pinned = {canonical(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert {canonical(re.split(r"[\[=<>]", name)[0]) for name in wanted} - pinned == {"fasterseg"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
