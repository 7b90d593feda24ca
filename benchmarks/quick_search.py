"""The `quick` search on this machine, for the programs beside it: a table measured here, data, and a common start."""

import argparse
import copy
import json
import os
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.measuring import alone_on, result_of
from fasterseg_core.config import DatasetName, Engine, ProfileConfig, SearchConfig
from fasterseg_core.datasets.batches import in_memory
from fasterseg_core.datasets.catalog import open_dataset
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.transforms import scaled_size
from fasterseg_core.latency_table import LatencyTable
from fasterseg_core.presets import QUICK
from fasterseg_core.reports import EpochReport
from fasterseg_core.search import Search, SearchState
from services.profiler.engines import open_runner
from services.profiler.processor import cpu_name
from services.profiler.table_builder import build_table


class QuickSearch:
    """Searches that differ in their configuration alone: one table, one data set, one pretraining of each seed."""

    def __init__(self, data: Path | None, table: Path | None) -> None:
        """Of a data set's folder, called as the data set is, and a table's document, as `add_arguments` has them."""
        dataset = DatasetName(data.resolve().name) if data else DatasetName.STREET_SCENES
        search, profile = QUICK["search"], QUICK["profile"]
        assert isinstance(search, SearchConfig)
        assert isinstance(profile, ProfileConfig)
        self.config = replace(search, dataset=dataset)
        self.table = _read(table) if table else _measured(replace(profile, dataset=dataset))
        size = scaled_size(self.config.resolution, self.config.image_scale)
        self.data: SegmentationData = in_memory(open_dataset(dataset, data or Path(), "train"), size)
        self._pretrained: dict[int, SearchState] = {}

    def start(self, seed: int, **changes: object) -> Search:
        """A search that has finished its pretraining."""
        if seed not in self._pretrained:
            search = self._search(seed)
            for report in search.run():
                if isinstance(report, EpochReport) and report.epoch == self.config.pretrain_epochs:
                    break
            self._pretrained[seed] = copy.deepcopy(search.state_dict())
        search = self._search(seed, **changes)
        search.load_state_dict({**copy.deepcopy(self._pretrained[seed]), "latency_weight": search.latency_weight})
        return search

    def _search(self, seed: int, **changes: object) -> Search:
        config = replace(self.config, seed=seed, **changes)  # type: ignore[arg-type]
        return Search(config, self.table, self.data, torch.device("cpu"))


def setting() -> dict[str, object]:
    """Where and when a program ran."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, this program's own included
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program that searches can be told."""
    parser.add_argument("--data", type=Path, help="a data set's folder, called as it is; street scenes without")
    parser.add_argument("--table", type=Path, help="a latency table's document; measured now without")


def _read(path: Path) -> LatencyTable:
    return LatencyTable.from_document(json.loads(path.read_text()))


def _measured(config: ProfileConfig) -> LatencyTable:
    with alone_on("cpu"):
        return result_of(build_table(config, open_runner(Engine.ONNXRUNTIME, config.threads)), "operators")
