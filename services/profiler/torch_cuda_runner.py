"""torch with CUDA graphs: measures any GPU that torch runs on, channels last, batch norms folded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn

from fasterseg_core.config import Engine, Precision
from services.profiler.cuda_timing import read_gpu, refuse_slowdown, sample
from services.profiler.onnx_program import load_program
from services.profiler.runners import Array, EngineUnavailableError, MeasurementError, RunnerIdentity, Workload

DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16}
WARM_UPS = 3  # before a capture: cuDNN chooses its algorithms

_Program = Callable[[Sequence[Tensor]], Tensor]


class TorchCudaRunner:
    """torch on the current CUDA device, in fp32 (TF32 off) or fp16.

    Raises:
        EngineUnavailableError: no GPU, or a torch without CUDA.
    """

    def __init__(self, precision: Precision) -> None:
        if not torch.cuda.is_available():
            raise EngineUnavailableError(
                f"torch_cuda needs an NVIDIA GPU and a CUDA build of torch; torch {torch.__version__} finds no GPU here"
            )
        properties = torch.cuda.get_device_properties()
        self._gpu = f"GPU-{properties.uuid}"
        gpu = read_gpu(self._gpu)
        self._device, self._dtype = torch.device("cuda"), DTYPES[precision]
        self.identity = RunnerIdentity(
            engine=Engine.TORCH_CUDA,
            engine_version=f"{torch.__version__} cudnn {cudnn.version()}",  # type: ignore[no-untyped-call]
            device=properties.name,
            driver=gpu.driver,
            address=gpu.address,
            threads=1,
            precision=precision,
            clock="CUDA graph difference",
        )
        self._programs: WeakKeyDictionary[Workload, _Program] = WeakKeyDictionary()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""
        with torch.no_grad(), self._settings():
            output = self._compile(workload)(self._to_device(inputs))
        return np.asarray(output.float().cpu().numpy(), dtype=np.float32)

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution on the GPU, launch excluded, once per sample."""
        program = partial(self._compile(workload), self._to_device(workload.random_inputs()))
        with torch.no_grad(), self._settings():
            try:
                milliseconds = sample(partial(_capture, program), samples)
            except torch.OutOfMemoryError as error:
                raise MeasurementError(str(error)) from error
        refuse_slowdown(self._gpu)
        return milliseconds

    def built(self, workload: Workload) -> dict[str, bytes]:
        """Nothing: a program starts from the ONNX."""
        return {}

    def _compile(self, workload: Workload) -> _Program:
        if workload not in self._programs:
            self._programs[workload] = load_program(workload.onnx, self._device, self._dtype)
        return self._programs[workload]

    def _to_device(self, inputs: Sequence[Array]) -> list[Tensor]:
        tensors = (torch.from_numpy(x).to(self._device, self._dtype) for x in inputs)
        return [x.contiguous(memory_format=torch.channels_last) for x in tensors]

    @contextmanager
    def _settings(self) -> Iterator[None]:
        with cudnn.flags(enabled=True, benchmark=True, benchmark_limit=0, allow_tf32=False):
            yield


@contextmanager
def _capture(program: Callable[[], Tensor], executions: int) -> Iterator[Callable[[], float]]:
    """A function that replays a CUDA graph of so many executions and returns its milliseconds."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            program()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(executions):
            program()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def replay() -> float:
        with torch.cuda.stream(stream):
            start.record()
            graph.replay()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    yield replay
    graph.reset()
