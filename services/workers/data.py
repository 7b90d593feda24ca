"""The data sets of the node that a job runs on."""

from pathlib import Path

from fasterseg_core.config import DatasetName
from fasterseg_core.datasets.batches import in_memory
from fasterseg_core.datasets.catalog import open_dataset
from fasterseg_core.datasets.segmentation import SegmentationData
from services.workers.job import Job


def load_data(job: Job, dataset: DatasetName, split: str, size: tuple[int, int]) -> SegmentationData:
    """One split of a data set, held in memory at (height, width) where it fits.

    Raises:
        ValueError: this node has no data root, or the data set is not in it.
    """
    if job.data_root is None and dataset is not DatasetName.STREET_SCENES:
        message = "this node has no data sets; start it with `fasterseg up --data-root` or FASTERSEG_DATA_ROOT"
        raise ValueError(f"dataset {dataset}: {message}")
    data = open_dataset(dataset, (job.data_root or Path()) / dataset, split)
    num_bytes = len(data) * 4 * size[0] * size[1]
    return in_memory(data, size) if num_bytes <= job.data_memory_mb * 2**20 else data
