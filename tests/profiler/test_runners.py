"""The contract of every runner, on those that this machine has."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch

from fasterseg_core.config import Engine, Precision
from fasterseg_core.operator_specs import OperatorSpec
from services.profiler.engines import open_runner
from services.profiler.runners import (
    EngineUnavailableError,
    MeasurementError,
    Runner,
    Workload,
    operator_workload,
    verify,
)
from tests.profiler.fake_runner import FakeRunner, a_workload

KEYS = [
    "stem 3->16 64x96 /8",
    "skip 8->8 9x12 /1",
    "skip 8->16 9x12 /1",
    "skip 8->16 9x11 /2",
    "conv 8->16 9x12 /2",
    "conv_x2 8->16 9x12 /1",
    "zoomed_conv 8->16 9x12 /1",
    "zoomed_conv_x2 8->16 9x12 /2",
    "pointwise 8->16 9x12 /1",
    "upsample 8->8 9x12 /2",
    "concat 8->24 9x12 /1",
    "prediction 8->11 9x12 /1",
]


@pytest.fixture(scope="module", params=[Engine.ONNXRUNTIME, Engine.OPENVINO])
def runner(request: pytest.FixtureRequest) -> Runner:
    return open_runner(request.param)


def workload(key: str) -> Workload:
    return operator_workload(OperatorSpec.from_key(key))


@pytest.mark.parametrize("key", KEYS)
def test_runs_every_operator_as_torch_does(runner: Runner, key: str) -> None:
    assert verify(runner, workload(key)) < 1e-4


def test_benchmark_gives_positive_finite_milliseconds(runner: Runner) -> None:
    milliseconds = runner.benchmark(workload("conv 8->16 9x12 /1"), samples=3)

    assert len(milliseconds) == 3
    assert all(math.isfinite(value) and value > 0 for value in milliseconds)


def test_names_itself(runner: Runner) -> None:
    identity = runner.identity

    assert identity.engine in (Engine.ONNXRUNTIME, Engine.OPENVINO)
    assert type(runner).__name__.lower().startswith(identity.engine.value)
    assert identity.engine_version
    assert identity.device
    assert (identity.threads, identity.precision) == (1, Precision.FP32)


def test_a_benchmark_does_not_change_what_run_gives(runner: Runner) -> None:
    operator = workload("conv 8->16 9x12 /1")
    inputs = operator.random_inputs(seed=3)
    before = runner.run(operator, inputs)

    runner.benchmark(operator, samples=1)

    np.testing.assert_array_equal(runner.run(operator, inputs), before)


def test_lets_go_of_what_it_compiled(runner: Runner) -> None:
    operator = workload("conv 8->16 9x12 /1")
    runner.benchmark(operator, samples=1)
    watched = weakref.ref(operator)

    del operator
    gc.collect()

    assert watched() is None


@pytest.mark.parametrize("engine", [Engine.ONNXRUNTIME, Engine.OPENVINO])
def test_a_cpu_engine_refuses_fp16(engine: Engine) -> None:
    with pytest.raises(ValueError, match=f"{engine} measures fp32 on CPUs, not fp16"):
        open_runner(engine, precision=Precision.FP16)


def test_a_refused_model_names_the_engines_reason(runner: Runner) -> None:
    broken = workload("conv 8->16 9x12 /1")
    broken.__dict__["onnx"] = b"no model"

    with pytest.raises(MeasurementError):
        runner.benchmark(broken, samples=1)


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
