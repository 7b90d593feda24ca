"""torch with CUDA graphs: measures any GPU that torch runs on, channels last, batch norms folded."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn

from fasterseg_core.config import Engine, Precision
from services.profiler.cuda_timing import CLOCK_ERROR_MS, Replay, Timer, read_gpu, steady_mhz, timer
from services.profiler.errors import EngineUnavailableError, MeasurementError
from services.profiler.onnx_program import load_program
from services.profiler.runners import Array, RunnerIdentity, Workload

DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16}
WARM_UPS = 3  # before a capture: cuDNN chooses its algorithms


@dataclass(frozen=True)
class _Program:
    compute: Callable[[Sequence[Tensor]], Tensor]
    inputs: list[Tensor]  # random ones, which its CUDA graphs read


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
            clock_error_ms=CLOCK_ERROR_MS,
        )
        self._programs: WeakKeyDictionary[Workload, _Program] = WeakKeyDictionary()
        self._timers: WeakKeyDictionary[Workload, Timer] = WeakKeyDictionary()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""
        with torch.no_grad(), self._settings():
            output = self._compile(workload).compute(self._to_device(inputs))
        return np.asarray(output.float().cpu().numpy(), dtype=np.float32)

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution on the GPU, launch excluded, once per sample."""
        try:
            if workload not in self._timers:
                program = self._compile(workload)
                with torch.no_grad(), self._settings():
                    self._timers[workload] = timer(partial(_capture, partial(program.compute, program.inputs)))
        except torch.OutOfMemoryError as error:
            raise MeasurementError(str(error)) from error
        return self._timers[workload].sample(samples)

    def sm_mhz(self) -> int:
        """The clock of the GPU's multiprocessors at this moment."""
        return steady_mhz(self._gpu)

    def built(self, workload: Workload) -> dict[str, bytes]:
        """Nothing: a program starts from the ONNX."""
        return {}

    def _compile(self, workload: Workload) -> _Program:
        if workload not in self._programs:
            compute = load_program(workload.onnx, self._device, self._dtype)
            self._programs[workload] = _Program(compute, self._to_device(workload.random_inputs()))
        return self._programs[workload]

    def _to_device(self, inputs: Sequence[Array]) -> list[Tensor]:
        tensors = (torch.from_numpy(x).to(self._device, self._dtype) for x in inputs)
        return [x.contiguous(memory_format=torch.channels_last) for x in tensors]

    @contextmanager
    def _settings(self) -> Iterator[None]:
        with cudnn.flags(enabled=True, benchmark=True, benchmark_limit=0, allow_tf32=False):
            yield


def _capture(program: Callable[[], Tensor], executions: int) -> Replay:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            program()
        stream.synchronize()
        graph.capture_begin()  # without torch.cuda.graph, which first gives all free memory back to the device
        for _ in range(executions):
            program()
        graph.capture_end()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def replay() -> float:
        with torch.cuda.stream(stream):
            start.record()
            graph.replay()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return replay
