"""OpenVINO on the CPU. It computes in threads of its own, so only the wall clock of a quiet machine measures it."""

import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import openvino

from fasterseg_core.config import Engine, Precision
from services.profiler.cpu_timing import CLOCK_ERROR_MS, sample
from services.profiler.errors import MeasurementError
from services.profiler.runners import Array, RunnerIdentity, Workload


class OpenVinoRunner:
    """OpenVINO's CPU device, in fp32.

    Raises:
        ValueError: a precision that not every CPU of this device computes in.
    """

    def __init__(self, threads: int, precision: Precision) -> None:
        if precision is not Precision.FP32:
            raise ValueError(f"openvino measures fp32 on CPUs, not {precision}")
        self._core = openvino.Core()
        self.identity = RunnerIdentity(
            engine=Engine.OPENVINO,
            engine_version=openvino.__version__,
            device=str(self._core.get_property("CPU", "FULL_DEVICE_NAME")),
            driver="none",
            address="cpu",
            threads=threads,
            precision=precision,
            clock="wall clock",
            clock_error_ms=CLOCK_ERROR_MS,
        )
        self._requests: WeakKeyDictionary[Workload, openvino.InferRequest] = WeakKeyDictionary()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""
        outputs = self._compile(workload).infer(list(inputs))
        return np.array(outputs[0])

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution, once per sample."""
        request = self._compile(workload)
        request.infer(workload.random_inputs())
        return sample(request.infer, samples, time.perf_counter)

    def sm_mhz(self) -> None:
        """A CPU does not tell its clock."""

    def built(self, workload: Workload) -> dict[str, bytes]:
        """Nothing: a session starts from the ONNX."""
        return {}

    def _compile(self, workload: Workload) -> openvino.InferRequest:
        if workload not in self._requests:
            settings = {
                "INFERENCE_NUM_THREADS": self.identity.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "EXECUTION_MODE_HINT": "ACCURACY",
                "INFERENCE_PRECISION_HINT": "f32",  # it takes bf16 by itself where the CPU has it
                "ENABLE_CPU_PINNING": False,  # of threads to cores that others may be using
            }
            try:
                model = self._core.read_model(workload.onnx)
                self._requests[workload] = self._core.compile_model(model, "CPU", settings).create_infer_request()
            except RuntimeError as error:
                raise MeasurementError(str(error)) from error
        return self._requests[workload]
