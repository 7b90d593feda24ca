"""The client and the core's values must import where the packages of the service and of tensors are not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORT_WITHOUT = """
import importlib, sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "ray", "fastapi", "sqlalchemy"}:
            raise ModuleNotFoundError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[1])
print(*sorted(name for name in sys.modules if name.startswith(("services.", "fasterseg_core."))))
"""


def imported_with(module: str) -> set[str]:
    """Our modules that are loaded once this one was imported."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_WITHOUT, module],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == 0, process.stdout
    return set(process.stdout.split())


@pytest.mark.parametrize("module", ["cli", "attempt"])
def test_the_client_imports_alone(module: str) -> None:
    imported = imported_with(f"services.client.{module}")

    assert f"services.client.{module}" in imported
    assert [name for name in imported if not name.startswith("services.client")] == []


@pytest.mark.parametrize(
    "module",
    ["search_space", "architecture", "operator_specs", "latency_calibration", "latency_table", "config", "drawing"],
)
def test_the_values_of_the_core_import_without_tensors(module: str) -> None:
    assert f"fasterseg_core.{module}" in imported_with(f"fasterseg_core.{module}")
