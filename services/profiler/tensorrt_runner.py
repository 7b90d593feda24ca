"""TensorRT with pycuda: the production runner of NVIDIA GPUs. Only this module imports either, once a runner is opened.

Networks are strongly typed: the ONNX carries the precision. Supports TensorRT >= 10.13, < 12.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from weakref import WeakKeyDictionary, finalize

import numpy as np

from fasterseg_core.config import Engine, Precision
from services.profiler.cuda_timing import CLOCK_ERROR_MS, Replay, Timer, read_gpu, steady_mhz, timer
from services.profiler.errors import EngineUnavailableError, MeasurementError
from services.profiler.half_precision import to_fp16
from services.profiler.runners import Array, RunnerIdentity, Workload
from services.profiler.timing_cache import cache_folder, read_timing_cache, write_timing_cache

PACKAGES = {"tensorrt": "tensorrt", "pycuda": "pycuda.driver", "cuda-bindings": "cuda.bindings.driver"}
DTYPES = {Precision.FP32: np.float32, Precision.FP16: np.float16}
OLDEST_VERSION, FIRST_UNSUPPORTED_VERSION = (10, 13), (12, 0)
OLDEST_CAPABILITY = (7, 5)
WORKSPACE_BYTES = 1 << 30
INSTALL = (
    "Install the extra `gpu` with NVIDIA's own package index beside the usual one: there, tensorrt-cu13-libs holds "
    "TensorRT's libraries; on the public index the package of that name is a stub that downloads them from NVIDIA. "
    "pycuda is built from source and needs the CUDA toolkit. No other engine ever stands in for this one."
)


@dataclass(frozen=True)
class Modules:
    """The packages that the runner drives the GPU with."""

    tensorrt: ModuleType
    cuda: ModuleType  # pycuda.driver
    graphs: ModuleType  # cuda.bindings.driver, since pycuda has no CUDA graphs


def import_modules(load: Callable[[str], ModuleType] = importlib.import_module) -> Modules:
    """The packages, once a supported TensorRT and a GPU are found; the device's primary context is then current.

    Raises:
        EngineUnavailableError: a package, its libraries, a supported version or a GPU is missing.
    """
    loaded = {}
    for package, module in PACKAGES.items():
        try:
            loaded[package] = load(module)
        except (ImportError, OSError) as error:  # OSError: a shared library that the package loads itself
            message = f"the tensorrt engine needs the package {package}: {error}. {INSTALL}"
            raise EngineUnavailableError(message) from error
    trt, cuda = loaded["tensorrt"], loaded["pycuda"]
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if not OLDEST_VERSION <= version < FIRST_UNSUPPORTED_VERSION:
        raise EngineUnavailableError(f"TensorRT {trt.__version__} is not supported: use >= 10.13, < 12. {INSTALL}")
    try:
        load("pycuda.autoprimaryctx")  # not autoinit: torch and TensorRT share the primary context
    except (cuda.Error, RuntimeError) as error:  # RuntimeError: pycuda finds no device that it may use
        raise EngineUnavailableError(f"the tensorrt engine needs an NVIDIA GPU and its driver: {error}") from error
    capability = cuda.Context.get_device().compute_capability()
    if capability < OLDEST_CAPABILITY:
        raise EngineUnavailableError(f"TensorRT needs a GPU of compute capability >= 7.5, not {capability}")
    return Modules(trt, cuda, loaded["cuda-bindings"])


def build_engine(trt: ModuleType, model: bytes, timing_cache: bytes = b"") -> tuple[bytes, bytes]:
    """The serialized engine of an ONNX model, and the timing cache with what building it has added.

    A timing cache that TensorRT does not take, of another device or damaged, is replaced by a new one.

    Raises:
        MeasurementError: TensorRT cannot parse or build the model.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise MeasurementError(f"TensorRT could not parse the ONNX: {errors}")
    config = builder.create_builder_config()
    config.max_aux_streams = 0
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the report of layers
    cache = config.create_timing_cache(timing_cache)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise MeasurementError("TensorRT could not build an engine; its log, on standard error, says why")
    cache = config.get_timing_cache()
    return bytes(plan), bytes(cache.serialize())


class Program:
    """A TensorRT engine with its buffers on the device and a stream of its own.

    Raises:
        MeasurementError: the engine cannot be loaded, or the device's memory does not hold its buffers.
    """

    def __init__(self, modules: Modules, plan: bytes, precision: Precision) -> None:
        trt, cuda = modules.tensorrt, modules.cuda
        self.plan = plan
        self._modules, self._dtype = modules, DTYPES[precision]
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        engine = self._runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise MeasurementError("TensorRT could not load the engine; its log, on standard error, says why")
        self._engine, self._context = engine, context
        self._stream = cuda.Stream()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        try:
            self._buffers = {
                name: cuda.mem_alloc(int(np.prod(shape)) * np.dtype(self._dtype).itemsize)
                for name, shape in self._shapes.items()
            }
        except cuda.MemoryError as error:
            raise MeasurementError(str(error)) from error
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, int(buffer))

    def write(self, inputs: Sequence[Array]) -> None:
        """Copies inputs to the device."""
        for name, x in zip(self._inputs, inputs, strict=True):
            self._modules.cuda.memcpy_htod(self._buffers[name], np.ascontiguousarray(x, dtype=self._dtype))

    def execute(self) -> None:
        """Enqueues one execution."""
        if not self._context.execute_async_v3(self._stream.handle):
            raise MeasurementError("TensorRT could not enqueue an execution")

    def read(self) -> Array:
        """The output, once everything enqueued is done."""
        (name,) = self._shapes.keys() - set(self._inputs)
        output = np.empty(self._shapes[name], dtype=self._dtype)
        self._stream.synchronize()
        self._modules.cuda.memcpy_dtoh(output, self._buffers[name])
        return output.astype(np.float32)

    def layers(self) -> str:
        """TensorRT's own report of the engine's layers, as JSON: what was fused, which kernel was chosen."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._modules.tensorrt.LayerInformationFormat.JSON))

    def capture(self, executions: int) -> Replay:
        """A CUDA graph of so many executions."""
        graphs, cuda = self._modules.graphs, self._modules.cuda
        self.execute()  # TensorRT allocates at the first execution, which a capture forbids
        self._stream.synchronize()
        stream = graphs.CUstream(self._stream.handle)
        mode = graphs.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(graphs.cuStreamBeginCapture, stream, mode)
        for _ in range(executions):
            self.execute()
        graph = self._call(graphs.cuStreamEndCapture, stream)
        replayable = self._call(graphs.cuGraphInstantiate, graph, 0)
        self._call(graphs.cuGraphDestroy, graph)
        start, end = cuda.Event(), cuda.Event()

        def replay() -> float:
            start.record(self._stream)
            self._call(graphs.cuGraphLaunch, replayable, stream)
            end.record(self._stream)
            end.synchronize()
            return float(start.time_till(end))

        finalize(replay, graphs.cuGraphExecDestroy, replayable)
        return replay

    def _call(self, function: Callable[..., tuple[object, ...]], *arguments: object) -> object:
        """Calls a function of cuda-bindings, whose first result is an error code; returns the second, if any."""
        code, *results = function(*arguments)
        if code != self._modules.graphs.CUresult.CUDA_SUCCESS:
            raise MeasurementError(f"{function.__name__} failed: {code}")
        return results[0] if results else None


class TensorRtRunner:
    """TensorRT on the current CUDA device, in fp32 (TF32 off) or fp16.

    Operators and networks of one machine share a timing cache, so that one problem is always given one kernel.

    Raises:
        EngineUnavailableError: a package, its libraries, a supported version or a GPU is missing.
    """

    def __init__(self, precision: Precision, modules: Modules | None = None) -> None:
        self._modules = modules or import_modules()
        device = self._modules.cuda.Context.get_device()
        self._pci = device.pci_bus_id()
        gpu = read_gpu(self._pci)
        self.identity = RunnerIdentity(
            engine=Engine.TENSORRT,
            engine_version=self._modules.tensorrt.__version__,
            device=device.name(),
            driver=gpu.driver,
            address=gpu.address,
            threads=1,
            precision=precision,
            clock="CUDA graph difference",
            clock_error_ms=CLOCK_ERROR_MS,
        )
        self._caches = cache_folder()
        self._programs: WeakKeyDictionary[Workload, Program] = WeakKeyDictionary()
        self._timers: WeakKeyDictionary[Workload, Timer] = WeakKeyDictionary()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""
        program = self._compile(workload)
        program.write(inputs)
        program.execute()
        return program.read()

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution on the GPU, launch excluded, once per sample."""
        program = self._compile(workload)
        program.write(workload.random_inputs())
        if workload not in self._timers:
            self._timers[workload] = timer(program.capture)
        return self._timers[workload].sample(samples)

    def sm_mhz(self) -> int:
        """The clock of the GPU's multiprocessors at this moment."""
        return steady_mhz(self._pci)

    def built(self, workload: Workload) -> dict[str, bytes]:
        """The plan that was measured, the timing cache of this kind of device, the report of the plan's layers."""
        program = self._compile(workload)
        return {
            "network.plan": program.plan,
            "timing.cache": read_timing_cache(self._caches, self.identity),
            "layers.json": program.layers().encode(),
        }

    def _compile(self, workload: Workload) -> Program:
        if workload not in self._programs:
            model = workload.onnx if self.identity.precision is Precision.FP32 else to_fp16(workload.onnx)
            plan, cache = build_engine(self._modules.tensorrt, model, read_timing_cache(self._caches, self.identity))
            write_timing_cache(self._caches, self.identity, cache)
            self._programs[workload] = Program(self._modules, plan, self.identity.precision)
        return self._programs[workload]
