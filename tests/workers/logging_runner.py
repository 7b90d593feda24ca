"""A small latency table to measure, by a runner that writes down what it times and can be made to hang."""

import threading
from pathlib import Path

from fasterseg_core.config import DatasetName, ProfileConfig
from fasterseg_core.operator_specs import space_specs
from fasterseg_core.search_space import Resolution, SearchSpace
from fasterseg_core.table_rows import neighbours_of
from services.profiler.neighbours import workload_between
from services.profiler.runners import Workload
from tests.profiler.fake_runner import MacsRunner

CONFIG = ProfileConfig(
    space=SearchSpace(num_layers=3, expansion_ratios=(1, 2), student_ratio=2),
    resolution=Resolution(height=64, width=64),
    dataset=DatasetName.CAMVID,
    passes=1,
    samples=1,
)
SPECS = space_specs(CONFIG.space, CONFIG.resolution, 11)
ROWS = {*SPECS, *(neighbour for spec in SPECS for neighbour in neighbours_of(spec))}
BATCH = 20


class LoggingRunner(MacsRunner):
    """Writes the key of each operator that it times to a file, the canary's left out; at the nth it waits for ever."""

    def __init__(self, log: Path, hang_at: int | None) -> None:
        super().__init__()
        self._keys = {workload_between(spec).onnx: spec.key for spec in ROWS}
        assert len(self._keys) == len(ROWS)
        self._log, self._hang_at, self._count = log, hang_at, 0
        self._canary: Workload | None = None

    def benchmark(self, workload: Workload, samples: int) -> list[float]:
        self._canary = self._canary or workload  # it is the first
        if workload is not self._canary:
            with self._log.open("a") as file:
                file.write(f"{self._keys[workload.onnx]}\n")
            self._count += 1
            if self._count == self._hang_at:
                threading.Event().wait()
        return super().benchmark(workload, samples)
