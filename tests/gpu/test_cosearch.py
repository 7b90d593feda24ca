"""The co-search on CUDA, against the CPU's and with graphs against without: `pytest -m gpu` on an NVIDIA machine."""

import pytest
import torch

from fasterseg_core.config import Arithmetic
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.batches import Batch
from tests.builders import a_latency_table, a_search_config, a_search_space

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")]

SPACE = a_search_space(num_layers=5, expansion_ratios=(1, 2, 3), student_ratio=2)
CUDA = torch.device("cuda")


def a_batch(device: torch.device, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    return images.to(device), torch.randint(3, (2, 64, 96), generator=generator).to(device)


def losses(device: torch.device, **changes: object) -> list[float]:
    """Of a pretraining step and two search steps."""
    models = CoSearch(a_search_config(space=SPACE, **changes), a_latency_table(SPACE), device)
    first = models.pretrain_step(a_batch(device, 0), "here")
    steps = [models.search_step(a_batch(device, i), a_batch(device, i + 5), 0.01, "here") for i in (1, 2)]
    return [first, *(step.weight_loss for step in steps), *(step.architecture_loss for step in steps)]


def test_a_gpu_searches_as_a_cpu_does() -> None:
    assert losses(CUDA) == pytest.approx(losses(torch.device("cpu")), rel=1e-2)


@pytest.mark.parametrize("arithmetic", Arithmetic)
def test_graphs_change_nothing(arithmetic: Arithmetic) -> None:
    graphed = losses(CUDA, arithmetic=arithmetic, cuda_graphs=True)

    assert graphed == pytest.approx(losses(CUDA, arithmetic=arithmetic), rel=1e-2)
