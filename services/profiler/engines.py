"""An inference engine by its name."""

from fasterseg_core.config import Engine, Precision
from services.profiler.runners import Runner


def open_runner(engine: Engine, threads: int = 1, precision: Precision = Precision.FP32) -> Runner:
    """The runner of an engine on this machine. Each engine is imported only here: a machine needs its own alone.

    Raises:
        EngineUnavailableError: a package or a device is missing; no other engine ever takes its place.
        ValueError: the engine does not measure this precision.
    """
    match engine:
        case Engine.ONNXRUNTIME:
            from services.profiler.onnxruntime_runner import OnnxRuntimeRunner

            return OnnxRuntimeRunner(threads, precision)
        case Engine.OPENVINO:
            from services.profiler.openvino_runner import OpenVinoRunner

            return OpenVinoRunner(threads, precision)
        case Engine.TORCH_CUDA:
            from services.profiler.torch_cuda_runner import TorchCudaRunner

            return TorchCudaRunner(precision)
        case Engine.TENSORRT:
            from services.profiler.tensorrt_runner import TensorRtRunner

            return TensorRtRunner(precision)
