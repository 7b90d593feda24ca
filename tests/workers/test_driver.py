import pytest

from services.client.schemas import JobKind
from services.workers.driver import needed_resources

CPU_CLUSTER = {"CPU": 8.0, "profiler": 1.0}
GPU_CLUSTER = {"CPU": 8.0, "GPU": 2.0, "profiler": 1.0}


@pytest.mark.parametrize("kind", [JobKind.PROFILE, JobKind.EXPORT])
def test_two_jobs_that_measure_never_share_a_profiler(kind: JobKind) -> None:
    assert 2 * needed_resources(kind, 1, CPU_CLUSTER)["profiler"] > CPU_CLUSTER["profiler"]


@pytest.mark.parametrize("kind", [JobKind.SEARCH, JobKind.RETRAIN, JobKind.EVALUATE])
def test_a_job_takes_a_gpu_where_there_is_one(kind: JobKind) -> None:
    assert needed_resources(kind, 2, GPU_CLUSTER) == {"CPU": 2, "GPU": 1}
    assert needed_resources(kind, 2, CPU_CLUSTER) == {"CPU": 2}
