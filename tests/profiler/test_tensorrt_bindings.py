"""Every name of TensorRT that its runner uses is in each generation supported: `make test-nvidia` fetches the bindings.

Without TensorRT's libraries they import against stubs of the nine functions that they link to; nothing can be called.
"""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from services.profiler import tensorrt_runner
from services.profiler.errors import EngineUnavailableError
from services.profiler.tensorrt_runner import import_modules

pytestmark = pytest.mark.nvidia

VERSIONS = ["10.13.2.6", "10.16.1.11", "11.4.0.106"]  # the oldest published, the pinned and the newest
LIBRARIES = ["nvinfer", "nvinfer_plugin", "nvonnxparser"]
FUNCTIONS = [
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]
DESCRIBE = """
import json, tensorrt_bindings as trt
print(json.dumps({"version": trt.__version__, "names": {name: dir(getattr(trt, name)) for name in dir(trt)}}))
"""
CLASSES = {  # of what the runner's module calls so
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "cache": "ITimingCache",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
}


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bindings(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bindings alone, as their wheel has them."""
    folder = tmp_path_factory.mktemp("bindings")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
    package = f"tensorrt-cu13-bindings=={version}"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, package], check=True)
    return folder


@pytest.fixture(scope="module")
def names(bindings: Path, version: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The public names of TensorRT, each with its attributes."""
    stubs = tmp_path_factory.mktemp("stubs")
    source = stubs / "stubs.c"
    source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in FUNCTIONS))
    for library in LIBRARIES:
        target = stubs / f"lib{library}.so.{version.partition('.')[0]}"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, source], check=True)
    paths = {"PYTHONPATH": str(bindings), "LD_LIBRARY_PATH": str(stubs)}
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE], env=os.environ | paths, check=True, capture_output=True, text=True
    )
    description = json.loads(described.stdout)
    assert description["version"] == version
    return description["names"]


def used() -> set[tuple[str, str]]:
    """The (name of TensorRT, attribute of it) that the runner's source touches; no attribute for a name by itself."""
    found = set()
    for node in ast.walk(ast.parse(Path(tensorrt_runner.__file__).read_text())):
        match node:
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="trt"), attr=name), attr=attribute):
                found.add((name, attribute))
            case ast.Attribute(value=ast.Name(id="trt"), attr=name):
                found.add((name, ""))
            case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=attribute):
                found |= {(CLASSES[owner], attribute)} if owner in CLASSES else set()
    return found


def missing(wanted: set[tuple[str, str]], names: dict[str, list[str]]) -> set[tuple[str, str]]:
    return {(name, attribute) for name, attribute in wanted if name not in names or attribute not in ["", *names[name]]}


def test_every_name_that_the_runner_uses_exists(names: dict[str, list[str]]) -> None:
    assert missing(used(), names) == set()


def test_every_class_of_the_runner_is_looked_at() -> None:
    assert {name for name, attribute in used() if attribute} >= {*CLASSES.values()} - {"INetworkDefinition"}


def test_what_a_generation_has_removed_is_missed(names: dict[str, list[str]], version: str) -> None:
    flags = {("BuilderFlag", "FP16"), ("BuilderFlag", "INT8"), ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")}

    assert missing(flags, names) == (flags if version.startswith("11.") else set())


def test_bindings_without_the_libraries_are_an_engine_that_is_not_available(
    bindings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(bindings)

    def load(name: str) -> ModuleType:
        return importlib.import_module("tensorrt_bindings" if name == "tensorrt" else name)

    with pytest.raises(EngineUnavailableError, match=r"needs the package tensorrt: libnv\w+\.so\.1[01]: cannot"):
        import_modules(load)
