"""What TensorRT's runner says where it cannot run; tests/contracts runs it on a GPU."""

import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pynvml
import pytest

from fasterseg_core.config import Precision
from services.profiler.errors import EngineUnavailableError, MeasurementError
from services.profiler.tensorrt_runner import Modules, Program, TensorRtRunner, import_modules


class CudaError(Exception):
    pass


class CudaMemoryError(CudaError):
    pass


class FakeEngine:
    """An engine with one input; it creates no execution context unless told to."""

    num_io_tensors = 1

    def __init__(self, context: object) -> None:
        self._context = context

    def create_execution_context(self) -> object:
        return self._context

    def get_tensor_name(self, index: int) -> str:
        return "input"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (1, 8, 9, 12)

    def get_tensor_mode(self, name: str) -> str:
        return "input"


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


def a_gpu(engine: FakeEngine | None) -> Modules:
    """A device without memory, and a TensorRT that loads every plan as this engine."""

    def no_memory(size: int) -> None:
        raise CudaMemoryError("cuMemAlloc failed: out of memory")

    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    trt = SimpleNamespace(
        __version__="10.16.1",
        Logger=type("Logger", (), {"ERROR": "error", "__init__": lambda self, severity: None}),
        Runtime=lambda logger: runtime,
        TensorIOMode=SimpleNamespace(INPUT="input"),
    )
    device = SimpleNamespace(pci_bus_id=lambda: "0000:01:00.0", name=lambda: "a GPU")
    cuda = SimpleNamespace(
        MemoryError=CudaMemoryError,
        Context=SimpleNamespace(get_device=lambda: device),
        Stream=object,
        mem_alloc=no_memory,
    )
    return Modules(trt, cuda, SimpleNamespace())


def test_the_module_imports_neither_package_by_itself() -> None:
    importlib.import_module("services.profiler.tensorrt_runner")


@pytest.mark.parametrize(
    ("missing", "package"),
    [
        ({"tensorrt": ModuleNotFoundError("No module named 'tensorrt'")}, "tensorrt"),
        ({"tensorrt": ImportError("libnvonnxparser.so.10: cannot open shared object file")}, "tensorrt"),
        ({"tensorrt": OSError("libnvinfer.so.10: cannot open shared object file")}, "tensorrt"),
        ({"pycuda_driver": ModuleNotFoundError("No module named 'pycuda'")}, "pycuda"),
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
    assert "No other engine ever stands in for this one" in message


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "10.0.1", "10.12.0.36", "12.0.0", "13.1.0.1"])
def test_an_unsupported_version_is_refused(version: str) -> None:
    with pytest.raises(EngineUnavailableError, match=f"TensorRT {version} is not supported: use >= 10.13, < 12"):
        import_modules(modules(version))


def test_a_version_is_refused_before_the_gpu_is_touched() -> None:
    with pytest.raises(EngineUnavailableError, match="is not supported"):
        import_modules(modules("12.0.0", pycuda_autoprimaryctx=AssertionError("the GPU was touched")))


@pytest.mark.parametrize("version", ["10.13.0", "10.16.1.11", "11.4.0.106"])
def test_a_supported_version_is_taken(version: str) -> None:
    assert import_modules(modules(version)).tensorrt.__version__ == version


@pytest.mark.parametrize(
    "error",
    [
        CudaError("cuInit failed: no CUDA-capable device is detected"),
        RuntimeError("No CUDA enabled device found."),  # of pycuda.tools
        RuntimeError("make_default_context() wasn't able to create a context on any of the 1 detected devices"),
    ],
    ids=["no driver", "no device", "no free device"],
)
def test_a_machine_without_a_gpu_is_told_so(error: Exception) -> None:
    with pytest.raises(EngineUnavailableError) as raised:
        import_modules(modules(pycuda_autoprimaryctx=error))

    assert str(raised.value) == f"the tensorrt engine needs an NVIDIA GPU and its driver: {error}"


@pytest.mark.parametrize("capability", [(5, 2), (7, 0), (7, 2)])
def test_an_old_gpu_is_refused(capability: tuple[int, int]) -> None:
    with pytest.raises(
        EngineUnavailableError, match=r"TensorRT needs a GPU of compute capability >= 7.5, not "
    ) as raised:
        import_modules(modules(capability=capability))

    assert str(raised.value).endswith(str(capability))


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (12, 0)])
def test_a_newer_gpu_is_taken(capability: tuple[int, int]) -> None:
    assert import_modules(modules(capability=capability)).cuda.Context.get_device().compute_capability() == capability


def test_a_gpu_whose_driver_cannot_be_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)

    with pytest.raises(EngineUnavailableError, match="NVIDIA's driver cannot tell the state of the GPU 0000:01:00.0"):
        TensorRtRunner(Precision.FP32, a_gpu(FakeEngine("context")))


@pytest.mark.parametrize("engine", [None, FakeEngine(None)], ids=["engine", "context"])
def test_an_engine_that_cannot_be_loaded_is_not_measured(engine: FakeEngine | None) -> None:
    with pytest.raises(MeasurementError, match="TensorRT could not load the engine"):
        Program(a_gpu(engine), b"plan", Precision.FP32)


def test_a_workload_larger_than_the_memory_is_not_measured() -> None:
    with pytest.raises(MeasurementError, match="out of memory"):
        Program(a_gpu(FakeEngine("context")), b"plan", Precision.FP32)
