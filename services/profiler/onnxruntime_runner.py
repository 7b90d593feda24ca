"""ONNX Runtime on the CPU. With one thread it computes in the calling thread, whose CPU time no neighbour disturbs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from fasterseg_core.config import Engine, Precision
from services.profiler.cpu_timing import CLOCK_ERROR_MS, sample
from services.profiler.errors import MeasurementError
from services.profiler.processor import cpu_name
from services.profiler.runners import Array, RunnerIdentity, Workload

REFUSALS = (
    errors.EngineError,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)
DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class _Program:
    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding  # random inputs, and outputs allocated once


class OnnxRuntimeRunner:
    """ONNX Runtime's CPU provider, in fp32.

    Raises:
        ValueError: a precision that this provider only emulates.
    """

    def __init__(self, threads: int, precision: Precision) -> None:
        if precision is not Precision.FP32:
            raise ValueError(f"onnxruntime measures fp32 on CPUs, not {precision}")
        self._now = time.thread_time if threads == 1 else time.perf_counter
        self.identity = RunnerIdentity(
            engine=Engine.ONNXRUNTIME,
            engine_version=onnxruntime.__version__,
            device=cpu_name(),
            driver="none",
            address="cpu",
            threads=threads,
            precision=precision,
            clock="thread CPU time" if threads == 1 else "wall clock",
            clock_error_ms=CLOCK_ERROR_MS,
        )
        self._programs: WeakKeyDictionary[Workload, _Program] = WeakKeyDictionary()

    def run(self, workload: Workload, inputs: Sequence[Array]) -> Array:
        """The workload's output."""
        session = self._compile(workload).session
        names = [value.name for value in session.get_inputs()]
        try:
            return np.asarray(session.run(None, dict(zip(names, inputs, strict=True)))[0])
        except REFUSALS as error:
            raise MeasurementError(str(error)) from error

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        """Milliseconds of one execution, once per sample."""
        program = self._compile(workload)
        return sample(lambda: program.session.run_with_iobinding(program.binding), samples, self._now)

    def sm_mhz(self) -> None:
        """A CPU does not tell its clock."""

    def built(self, workload: Workload) -> dict[str, bytes]:
        """Nothing: a session starts from the ONNX."""
        return {}

    def _compile(self, workload: Workload) -> _Program:
        if workload not in self._programs:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.identity.threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            # The threads of one workload must not spin on while another is timed.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            try:
                session = onnxruntime.InferenceSession(workload.onnx, options, providers=["CPUExecutionProvider"])
            except REFUSALS as error:
                raise MeasurementError(str(error)) from error
            self._programs[workload] = _Program(session, _bind(session, workload))
        return self._programs[workload]


def _bind(session: onnxruntime.InferenceSession, workload: Workload) -> onnxruntime.IOBinding:
    binding = session.io_binding()
    for value, array in zip(session.get_inputs(), workload.random_inputs(), strict=True):
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for value in session.get_outputs():
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(value.shape, DTYPES[value.type])
        binding.bind_ortvalue_output(value.name, output)
    return binding
