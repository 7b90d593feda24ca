"""What TensorRT's runner says where it cannot run; tests/gpu runs it."""

import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from services.profiler.runners import EngineUnavailableError
from services.profiler.tensorrt_runner import import_modules


class CudaError(Exception):
    pass


def modules(version: str = "10.16.1", capability: tuple[int, int] = (9, 0), **missing: Exception) -> Callable:
    """Loads packages that look like the real ones, or raises what is given for one of them."""
    device = SimpleNamespace(compute_capability=lambda: capability)
    packages = {
        "tensorrt": SimpleNamespace(__version__=version),
        "pycuda.driver": SimpleNamespace(Error=CudaError, Context=SimpleNamespace(get_device=lambda: device)),
        "pycuda.autoprimaryctx": SimpleNamespace(),
        "cuda.bindings.driver": SimpleNamespace(),
    }

    def load(name: str) -> ModuleType | SimpleNamespace:
        for package, error in missing.items():
            if name.replace(".", "_") == package:
                raise error
        return packages[name]

    return load


def test_the_module_imports_neither_package_by_itself() -> None:
    importlib.import_module("services.profiler.tensorrt_runner")


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ({"tensorrt": ModuleNotFoundError("No module named 'tensorrt'")}, "tensorrt"),
        ({"tensorrt": OSError("libnvinfer.so.10: cannot open shared object file")}, "tensorrt"),
        ({"pycuda_driver": ImportError("libcuda.so.1: cannot open shared object file")}, "pycuda"),
        ({"cuda_bindings_driver": ModuleNotFoundError("No module named 'cuda'")}, "cuda-bindings"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_install_it(missing: dict[str, Exception], package: str) -> None:
    with pytest.raises(EngineUnavailableError) as raised:
        import_modules(modules(**missing))

    message = str(raised.value)
    assert f"needs the package {package}: {next(iter(missing.values()))}" in message
    assert "the package of that name is a stub that downloads them from NVIDIA" in message


@pytest.mark.parametrize("version", ["10.12.0", "8.6.1", "12.0.0"])
def test_an_unsupported_version_is_refused(version: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"TensorRT {version} is not supported: use >= 10.13, < 12"):
        import_modules(modules(version))


@pytest.mark.parametrize("version", ["10.13.0", "10.16.1.11", "11.4.0.106"])
def test_a_supported_version_is_taken(version: str) -> None:
    assert import_modules(modules(version)).tensorrt.__version__ == version


def test_a_machine_without_a_gpu_is_told_so() -> None:
    with pytest.raises(EngineUnavailableError, match="needs an NVIDIA GPU and its driver: no device"):
        import_modules(modules(pycuda_autoprimaryctx=CudaError("no device")))


def test_an_old_gpu_is_refused() -> None:
    with pytest.raises(EngineUnavailableError, match=r"compute capability >= 7.5, not \(7, 0\)"):
        import_modules(modules(capability=(7, 0)))
