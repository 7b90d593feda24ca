"""What holds for workloads and for opening engines; tests/contracts/test_runner.py has the rules of every runner."""

import numpy as np
import pytest
import torch

from fasterseg_core.config import Engine
from fasterseg_core.operator_specs import OperatorSpec
from services.profiler.engines import open_runner
from services.profiler.errors import EngineUnavailableError, MeasurementError
from services.profiler.runners import Workload, operator_workload, verify
from tests.profiler.fake_runner import FakeRunner, a_workload


def workload(key: str) -> Workload:
    return operator_workload(OperatorSpec.from_key(key))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("engine", "missing"), [(Engine.TENSORRT, "tensorrt"), (Engine.TORCH_CUDA, "NVIDIA GPU")])
def test_no_engine_stands_in_for_one_that_is_missing(engine: Engine, missing: str) -> None:
    with pytest.raises(EngineUnavailableError, match=missing):
        open_runner(engine)


def test_onnxruntime_with_two_threads_takes_the_wall_clock() -> None:
    assert open_runner(Engine.ONNXRUNTIME, threads=2).identity.clock == "wall clock"


def test_a_wrong_output_is_refused() -> None:
    runner = FakeRunner()
    runner.wrong = {"a"}

    with pytest.raises(MeasurementError, match="differs from torch's"):
        verify(runner, a_workload("a"))


def test_inputs_are_random_and_repeatable() -> None:
    operator = workload("concat 8->24 9x12 /1")

    first, second = operator.random_inputs()

    assert (first.shape, second.shape) == ((1, 8, 9, 12), (1, 16, 9, 12))
    assert np.abs(first).min() > 0
    np.testing.assert_array_equal(first, operator.random_inputs()[0])


def test_an_operators_onnx_is_the_same_every_time() -> None:
    key = "zoomed_conv 8->16 9x12 /1"

    assert workload(key).onnx == workload(key).onnx
