"""The contract of the GPU runners, TensorRT's where it is installed: `pytest -m gpu` on an NVIDIA machine."""

import math

import pytest
import torch

from fasterseg_core.config import Engine, Precision
from fasterseg_core.operator_specs import OperatorSpec
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.engines import open_runner
from services.profiler.fidelity import network_workload, random_architectures
from services.profiler.runners import TOLERANCE, EngineUnavailableError, Runner, operator_workload, verify
from tests.profiler.test_runners import KEYS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")]

LARGE = OperatorSpec.from_key("conv_x2 96->96 128x256 /1")
SMALL = OperatorSpec.from_key("conv 96->96 32x64 /1")


@pytest.fixture(scope="module", params=[Engine.TORCH_CUDA, Engine.TENSORRT])
def engine(request: pytest.FixtureRequest) -> Engine:
    try:
        open_runner(request.param)
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    return Engine(request.param)


@pytest.fixture(scope="module", params=list(Precision))
def runner(engine: Engine, request: pytest.FixtureRequest) -> Runner:
    return open_runner(engine, precision=request.param)


@pytest.mark.parametrize("key", KEYS)
def test_runs_every_operator_as_torch_does(runner: Runner, key: str) -> None:
    assert verify(runner, operator_workload(OperatorSpec.from_key(key))) <= TOLERANCE[runner.identity.precision]


def test_runs_a_network_as_torch_does(runner: Runner) -> None:
    space = SearchSpace(num_layers=4, expansion_ratios=(4, 8), student_ratio=8)
    (architecture,) = random_architectures(space, 1)

    verify(runner, network_workload(architecture, Resolution(height=180, width=250), 11))


def test_benchmark_gives_positive_finite_milliseconds(runner: Runner) -> None:
    milliseconds = runner.benchmark(operator_workload(SMALL), samples=5)

    assert len(milliseconds) == 5
    assert all(math.isfinite(value) and value > 0 for value in milliseconds)


def test_a_larger_operator_takes_longer(runner: Runner) -> None:
    small, large = (min(runner.benchmark(operator_workload(spec), samples=5)) for spec in (SMALL, LARGE))

    assert large > small


def test_a_benchmark_does_not_change_what_run_gives(runner: Runner) -> None:
    workload = operator_workload(SMALL)

    runner.benchmark(workload, samples=1)

    verify(runner, workload)


def test_names_itself(runner: Runner, engine: Engine) -> None:
    identity = runner.identity

    assert identity.engine is engine
    assert identity.device == torch.cuda.get_device_name()
    assert identity.driver
