"""Batches that follow from (seed, epoch, step) alone, so that a search resumes at any step with the same images.

They are prepared ahead by threads of this process, not by others: what they do (decode, resize, crop, normalise) leaves
Python's lock alone, so they share the data set's memory and need neither a fork nor a copy.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fasterseg_core.datasets.segmentation import Colour, SegmentationData
from fasterseg_core.datasets.transforms import EvaluationTransform, Size, TrainingTransform, resize

Batch = tuple[Tensor, Tensor]  # images (B, 3, h, w) float32, labels (B, h, w) int64
S = TypeVar("S")
T = TypeVar("T")


def batches(
    data: SegmentationData,
    indices: Sequence[int],
    transform: TrainingTransform,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    steps: int | None = None,
    num_workers: int = 1,
) -> Iterator[Batch]:
    """The batches of one epoch from `start_step` on, shuffled; one pass over the indices, or `steps` in all.

    Every pass is a fresh permutation and drops its last incomplete batch. Neither `start_step` nor `num_workers`, the
    threads that prepare batches, changes what the batch of a step holds, and torch's global generator is not used.

    Raises:
        ValueError: fewer images than one batch.
    """
    if len(indices) < batch_size:
        raise ValueError(f"{len(indices)} images are fewer than one batch of {batch_size}: use a smaller batch_size")
    epoch_batches = _EpochBatches(data, tuple(indices), transform, batch_size, seed, epoch)
    last = epoch_batches.steps_per_pass if steps is None else steps
    return _ahead(epoch_batches.batch, range(start_step, last), num_workers)


def evaluation_batches(
    data: SegmentationData,
    indices: Sequence[int],
    transform: EvaluationTransform,
    *,
    batch_size: int,
    num_workers: int = 1,
) -> Iterator[Batch]:
    """Every image once, in the order of the indices; the last batch may be smaller."""

    def batch(start: int) -> Batch:
        return _stack([transform(*data.sample(index)) for index in indices[start : start + batch_size]])

    return _ahead(batch, range(0, len(indices), batch_size), num_workers)


@dataclass(frozen=True)
class InMemory:
    """A data set decoded and resized once; for sets whose pixels fit, 4 bytes each."""

    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    samples: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        return self.samples[index]


def in_memory(data: SegmentationData, size: Size) -> InMemory:
    """All samples of a data set at one (height, width), so that a transform with this base only scales and crops."""
    samples = tuple(resize(*data.sample(index), size) for index in range(len(data)))
    return InMemory(data.classes, data.colours, samples)


@dataclass(frozen=True)
class _EpochBatches:
    """The batch of each step of one epoch."""

    data: SegmentationData
    indices: tuple[int, ...]
    transform: TrainingTransform
    batch_size: int
    seed: int
    epoch: int

    @property
    def steps_per_pass(self) -> int:
        return len(self.indices) // self.batch_size

    def batch(self, step: int) -> Batch:
        number, step_of_pass = divmod(step, self.steps_per_pass)
        generator = torch.Generator().manual_seed(_derived_seed(self.seed, self.epoch, number))
        order: list[int] = torch.randperm(len(self.indices), generator=generator).tolist()
        first = step_of_pass * self.batch_size
        chosen = [self.indices[position] for position in order[first : first + self.batch_size]]
        return _stack(
            [
                self.transform(*self.data.sample(index), _derived_seed(self.seed, self.epoch, number, index))
                for index in chosen
            ]
        )


def _derived_seed(*parts: int) -> int:
    """A seed of 63 bits that differs wherever any part does, and is the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def _ahead(make: Callable[[S], T], items: Iterable[S], num_workers: int) -> Iterator[T]:
    """What is made of the items, in their order; threads make the next ones while the caller uses one.

    Nothing is begun before the first is asked for. Each thread is at most one item ahead, one more waits.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(num_workers, thread_name_prefix="batches") as threads:
        made = deque(threads.submit(make, item) for item in islice(waiting, num_workers + 1))
        try:
            while made:
                result = made.popleft().result()
                made.extend(threads.submit(make, item) for item in islice(waiting, 1))
                yield result
        finally:
            threads.shutdown(cancel_futures=True)


def _stack(samples: Sequence[Batch]) -> Batch:
    images, labels = zip(*samples, strict=True)
    return _stacked(images), _stacked(labels)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return torch.from_numpy(np.stack([part.numpy() for part in parts]))
