"""The rules of Runner, run on every engine: those of GPUs with `make test-gpu`, TensorRT's where it is installed."""

import gc
import json
import math
import weakref
from dataclasses import astuple

import numpy as np
import onnx
import pytest
import torch

from fasterseg_core.config import CPU_ENGINES, Engine, Precision
from fasterseg_core.operator_specs import OperatorSpec
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.engines import open_runner
from services.profiler.errors import EngineUnavailableError, MeasurementError
from services.profiler.neighbours import workload_between
from services.profiler.random_networks import network_workload, random_architectures
from services.profiler.runners import TOLERANCE, Runner, Workload, operator_workload, verify
from tests.profiler.builders import KEYS, an_unknown_operator

SMALL = "conv 96->96 32x64 /1"
LARGE = "conv_x2 96->96 128x256 /1"

LIMITS = TOLERANCE | dict.fromkeys(CPU_ENGINES, 1e-4)  # of what verify gives: by precision, a CPU engine's closer
RUNNERS = [
    *(pytest.param((engine, Precision.FP32), id=engine) for engine in CPU_ENGINES),
    *(
        pytest.param((engine, precision), id=f"{engine} {precision}", marks=pytest.mark.gpu)
        for engine in (Engine.TORCH_CUDA, Engine.TENSORRT)
        for precision in Precision
    ),
]


@pytest.fixture(scope="module", params=RUNNERS)
def asked(request: pytest.FixtureRequest) -> tuple[Engine, Precision]:
    return request.param


@pytest.fixture(scope="module")
def runner(asked: tuple[Engine, Precision]) -> Runner:
    engine, precision = asked
    try:
        return open_runner(engine, precision=precision)
    except EngineUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def limit(asked: tuple[Engine, Precision]) -> float:
    engine, precision = asked
    return LIMITS.get(engine, LIMITS[precision])


def workload(key: str) -> Workload:
    return operator_workload(OperatorSpec.from_key(key))


def a_workload_of(model: bytes) -> Workload:
    """An identity whose ONNX is another's."""
    replaced = Workload(torch.nn.Identity(), ((1, 8, 9, 12),))
    replaced.__dict__["onnx"] = model
    return replaced


@pytest.mark.parametrize("key", KEYS)
def test_runs_every_operator_as_torch_does(runner: Runner, limit: float, key: str) -> None:
    assert verify(runner, workload(key)) <= limit


@pytest.mark.parametrize("key", KEYS)
def test_runs_every_operator_between_neighbours_as_torch_does(runner: Runner, limit: float, key: str) -> None:
    assert verify(runner, workload_between(OperatorSpec.from_key(key))) <= limit


@pytest.mark.parametrize("size", [(128, 192), (135, 190)], ids=str)
def test_runs_a_network_as_torch_does(runner: Runner, limit: float, size: tuple[int, int]) -> None:
    space = SearchSpace(num_layers=4, expansion_ratios=(4, 8), student_ratio=8)
    (architecture,) = random_architectures(space, 1)
    network = network_workload(architecture, Resolution(height=size[0], width=size[1]), 11)

    assert verify(runner, network) <= limit


@pytest.mark.parametrize("key", ["conv 8->16 9x11 /1", "concat 8->24 9x11 /1", "skip 8->8 9x11 /1"])
def test_a_benchmark_gives_as_many_positive_milliseconds_as_asked(runner: Runner, key: str) -> None:
    milliseconds = runner.benchmark(workload(key), samples=3)

    assert len(milliseconds) == 3
    assert all(math.isfinite(value) and value > 0 for value in milliseconds)


def test_fills_its_identity(runner: Runner, asked: tuple[Engine, Precision]) -> None:
    identity = runner.identity

    assert (identity.engine, identity.precision, identity.threads) == (*asked, 1)
    assert all(astuple(identity))


def test_a_benchmark_does_not_change_what_run_gives(runner: Runner) -> None:
    operator = workload("conv 8->16 9x11 /1")
    inputs = operator.random_inputs(seed=3)
    before = runner.run(operator, inputs)

    runner.benchmark(operator, samples=1)

    np.testing.assert_array_equal(runner.run(operator, inputs), before)


def test_gives_fp32_of_the_reference_shape(runner: Runner) -> None:
    operator = workload("zoomed_conv 8->16 9x11 /2")

    output = runner.run(operator, operator.random_inputs())

    assert (output.dtype, output.shape) == (np.float32, (1, 16, 5, 6))


def test_keeps_files_of_what_it_built_if_it_builds_anything(runner: Runner) -> None:
    files = runner.built(workload("conv 8->16 9x11 /1"))

    if runner.identity.engine is Engine.TENSORRT:
        assert files.keys() == {"network.plan", "timing.cache", "layers.json"}
        assert json.loads(files["layers.json"])["Layers"]
    else:
        assert files == {}


def test_lets_go_of_what_it_compiled(runner: Runner) -> None:
    operator = workload("conv 8->16 9x11 /1")
    runner.benchmark(operator, samples=1)
    watched = weakref.ref(operator)

    del operator
    gc.collect()

    assert watched() is None


@pytest.mark.parametrize("model", [b"", b"no model", an_unknown_operator()], ids=["empty", "garbage", "unknown"])
def test_a_refused_workload_is_neither_run_nor_timed(runner: Runner, model: bytes) -> None:
    refused = a_workload_of(model)

    with pytest.raises(MeasurementError):
        runner.run(refused, refused.random_inputs())
    with pytest.raises(MeasurementError):
        runner.benchmark(refused, samples=1)


def test_a_refusal_does_not_spoil_the_runner(runner: Runner) -> None:
    with pytest.raises(MeasurementError):
        runner.benchmark(a_workload_of(b"no model"), samples=1)

    verify(runner, workload("conv 8->16 9x11 /1"))


def test_the_unknown_operator_is_all_that_is_wrong_with_its_model() -> None:
    onnx.checker.check_model(onnx.load_from_string(an_unknown_operator()))


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_cpu_engine_refuses_fp16(engine: Engine) -> None:
    with pytest.raises(ValueError, match=f"{engine} measures fp32 on CPUs, not fp16"):
        open_runner(engine, precision=Precision.FP16)
