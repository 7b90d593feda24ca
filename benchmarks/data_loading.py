"""How long a search step waits for its batches, and what preparing them costs.

    python -m benchmarks.data_loading
    python -m benchmarks.data_loading --data /data/camvid

CamVid's layout (generated street scenes without --data), read from files at every use or decoded once. A step is one of
the `quick` search, or of the paper's: 16 layers, five ratios, crops of 160 x 320, batch 2. Waiting is the time from
asking for a step's two batches until they are there. Preparing is the CPU time of making them, measured with nothing
beside it: a machine whose cores are all busy loses that share of a step however early the batches are made. The last
line is one JSON object.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from PIL import Image

from fasterseg_core.config import NUM_CLASSES, PAPER_GRANULARITY_WEIGHTS, DatasetName, SearchConfig
from fasterseg_core.cosearch import CoSearch
from fasterseg_core.datasets.batches import Batch, batches, in_memory
from fasterseg_core.datasets.catalog import open_dataset
from fasterseg_core.datasets.segmentation import SegmentationData
from fasterseg_core.datasets.splits import random_split
from fasterseg_core.datasets.street_scenes import street_scenes
from fasterseg_core.datasets.transforms import TrainingTransform, scaled_size
from fasterseg_core.presets import QUICK
from fasterseg_core.search_space import Resolution
from services.profiler.processor import cpu_name
from tests.builders import a_latency_table

DATASET = DatasetName.CAMVID
VOID = 11  # in SegNet's labels
SCENES = 120
PREPARED = 40  # batches, to measure what one costs


def main() -> None:
    """Prints a line for each shape and way of reading, and a summary."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="data-loading-") as folder:
        root = arguments.data or _generated(Path(folder))
        files = open_dataset(DATASET, root, "train")
        print(f"{cpu_name()}, {arguments.threads} threads, {device}; {len(files)} images", flush=True)
        results: dict[str, dict[str, float]] = {}
        for shape, (config, steps) in _shapes(arguments.steps, arguments.paper_steps).items():
            size = scaled_size(config.resolution, config.image_scale)
            cached = in_memory(files, size)
            models = _models(config, device)
            for way, data in (("cached", cached), ("files", files)):
                result = _measured(config, data, models, steps, device)
                results[f"{shape}, {way}"] = result
                print(f"{shape}, {way}:", json.dumps(result), flush=True)
        decoding = _decode_rate(files)
    print(f"decoded: {decoding:.0f} pairs of image and label a CPU-second")
    setting = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": cpu_name(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": arguments.threads,
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "images": len(files),
    }
    print(json.dumps({"setting": setting, "pairs_decoded_per_cpu_second": round(decoding), "steps": results}))


def _shapes(quick_steps: int, paper_steps: int) -> dict[str, tuple[SearchConfig, int]]:
    """The searches whose steps are taken, and how many of them."""
    quick = QUICK["search"]
    assert isinstance(quick, SearchConfig)
    paper = SearchConfig(
        dataset=DATASET,
        resolution=Resolution(height=720, width=960),  # images are used at half of it, as in appendix H
        granularity_weights=PAPER_GRANULARITY_WEIGHTS,
    )
    return {"quick": (replace(quick, dataset=DATASET), quick_steps), "paper": (paper, paper_steps)}


def _measured(
    config: SearchConfig, data: SegmentationData, models: CoSearch, steps: int, device: torch.device
) -> dict[str, float]:
    """Shares of a step, and its seconds."""
    streams = _streams(config, data, PREPARED)
    began = time.process_time()
    prepared = sum(len(list(stream)) for stream in streams)
    preparing = 2 * (time.process_time() - began) / prepared

    waited = 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    weights, architectures = _streams(config, data, steps)
    for _ in range(steps):
        asked = time.perf_counter()
        pair = next(weights), next(architectures)
        waited += time.perf_counter() - asked
        first, second = ((images.to(device), labels.to(device)) for images, labels in pair)
        models.search_step(first, second, config.latency_weight, "here")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "waiting_share": round(waited / wall, 5),
        "preparing_share": round(preparing * steps / cpu, 5),
        "preparing_cpu_ms": round(1000 * preparing, 2),
        "step_cpu_seconds": round(cpu / steps, 3),
        "step_seconds": round(wall / steps, 3),
        "steps": steps,
    }


def _streams(config: SearchConfig, data: SegmentationData, steps: int) -> tuple[Iterator[Batch], Iterator[Batch]]:
    """The batches of trainA and trainB, as a search reads them."""
    split = random_split(
        len(data), holdout_share=config.holdout_share, max_holdout=config.holdout_images, seed=config.seed
    )
    transform = TrainingTransform(base=scaled_size(config.resolution, config.image_scale), crop=config.crop)
    first, second = (
        batches(
            data,
            indices,
            transform,
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=0,
            steps=steps,
            num_workers=config.num_workers,
        )
        for indices in (split.train_a, split.train_b)
    )
    return first, second


def _models(config: SearchConfig, device: torch.device) -> CoSearch:
    """A supernet that has taken one step: the first one also allocates."""
    table = a_latency_table(config.space, config.resolution, NUM_CLASSES[config.dataset])
    models = CoSearch(config, table, device)
    images = torch.zeros(config.batch_size, 3, config.crop.height, config.crop.width, device=device)
    labels = torch.zeros(config.batch_size, config.crop.height, config.crop.width, dtype=torch.long, device=device)
    models.search_step((images, labels), (images, labels), config.latency_weight, "here")
    return models


def _decode_rate(files: SegmentationData) -> float:
    """How many samples are read from files in a second of CPU time."""
    began, count = time.process_time(), min(len(files), 60)
    for index in range(count):
        files.sample(index)
    return count / (time.process_time() - began)


def _generated(root: Path) -> Path:
    """Street scenes as CamVid's files."""
    scenes = street_scenes("train", num_images=SCENES)
    for folder in ("train", "trainannot"):
        (root / folder).mkdir()
    for index in range(len(scenes)):
        image, mask = (values.numpy() for values in scenes.sample(index))
        Image.fromarray(image.transpose(1, 2, 0)).save(root / "train" / f"{index:04}.png")
        Image.fromarray(mask.clip(max=VOID)).save(root / "trainannot" / f"{index:04}.png")
    return root


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="CamVid, in SegNet's layout")
    parser.add_argument("--steps", type=int, default=20, help="of the quick search")
    parser.add_argument("--paper-steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
