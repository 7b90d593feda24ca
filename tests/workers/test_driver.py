import pytest

from services.client.attempt_schemas import Assignment, ResolvedInputs
from services.client.schemas import JobKind
from services.workers.driver import held_devices, needed_resources

CPU_CLUSTER = {"CPU": 8.0, "profiler": 1.0}
GPU_CLUSTER = {"CPU": 8.0, "GPU": 2.0, "profiler": 1.0}


def an_assignment(kind: JobKind, engine: str = "onnxruntime") -> Assignment:
    return Assignment(
        token="t",
        job="a" * 12,
        kind=kind,
        epoch=1,
        spec={"engine": engine},
        inputs=ResolvedInputs(),
        checkpoints=[],
        heartbeat_seconds=10,
    )


@pytest.mark.parametrize("kind", [JobKind.PROFILE, JobKind.EXPORT])
def test_two_jobs_that_measure_never_share_a_profiler(kind: JobKind) -> None:
    assert 2 * needed_resources(an_assignment(kind), 1, CPU_CLUSTER)["profiler"] > CPU_CLUSTER["profiler"]


@pytest.mark.parametrize("kind", [JobKind.SEARCH, JobKind.RETRAIN, JobKind.EVALUATE])
def test_a_job_takes_a_gpu_where_there_is_one(kind: JobKind) -> None:
    assert needed_resources(an_assignment(kind), 2, GPU_CLUSTER) == {"CPU": 2, "GPU": 1}
    assert needed_resources(an_assignment(kind), 2, CPU_CLUSTER) == {"CPU": 2}


@pytest.mark.parametrize("engine", ["tensorrt", "torch_cuda"])
def test_an_engine_of_the_gpu_measures_alone_on_it(engine: str) -> None:
    assert needed_resources(an_assignment(JobKind.PROFILE, engine), 1, GPU_CLUSTER)["GPU"] == 1


def test_an_engine_of_the_processor_leaves_the_gpu_to_others() -> None:
    assert "GPU" not in needed_resources(an_assignment(JobKind.PROFILE), 1, GPU_CLUSTER)


@pytest.mark.parametrize(
    ("resources", "devices"), [({"CPU": 4}, 1), ({"CPU": 4, "GPU": 1.0}, 1), ({"CPU": 4, "GPU": 2.0}, 2)]
)
def test_hours_are_multiplied_by_gpus_and_by_1_without_any(resources: dict[str, float], devices: int) -> None:
    assert held_devices(resources) == devices
