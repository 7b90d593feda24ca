"""Batches that follow from (seed, epoch, step) alone, so that a search resumes at any step with the same images."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fasterseg_core.datasets.segmentation import Colour, SegmentationData
from fasterseg_core.datasets.transforms import EvaluationTransform, Size, TrainingTransform, resize

Batch = tuple[Tensor, Tensor]  # images (B, 3, h, w) float32, labels (B, h, w) int64


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
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch from `start_step` on, shuffled; one pass over the indices, or `steps` in all.

    Every pass is a fresh permutation and drops its last incomplete batch. Neither `start_step` nor `num_workers`
    changes what the batch of a step holds, and torch's global generator is left as it was.

    Raises:
        ValueError: fewer images than one batch.
    """
    if len(indices) < batch_size:
        raise ValueError(f"{len(indices)} images are fewer than one batch of {batch_size}: use a smaller batch_size")
    epoch_batches = _EpochBatches(data, tuple(indices), transform, batch_size, seed, epoch)
    last = epoch_batches.steps_per_pass if steps is None else steps
    # A generator of its own: a loader draws a seed for its workers, by default from the global one.
    return iter(
        DataLoader(
            epoch_batches,
            batch_size=None,
            sampler=range(start_step, last),
            num_workers=num_workers,
            generator=torch.Generator(),
        )
    )


def evaluation_batches(
    data: SegmentationData, indices: Sequence[int], transform: EvaluationTransform, *, batch_size: int
) -> Iterator[Batch]:
    """Every image once, in the order of the indices; the last batch may be smaller."""
    for start in range(0, len(indices), batch_size):
        yield _stack([transform(*data.sample(index)) for index in indices[start : start + batch_size]])


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
class _EpochBatches(Dataset[Batch]):
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

    def __getitem__(self, step: int) -> Batch:
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


def _stack(samples: Sequence[Batch]) -> Batch:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(labels)
