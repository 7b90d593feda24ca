"""The random split of a training set into trainA, trainB and a hold-out (appendix F, appendix B)."""

import hashlib
import json
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Split:
    """Disjoint indices: weights learn on trainA, the architecture on trainB, branches compete on the hold-out."""

    train_a: tuple[int, ...]
    train_b: tuple[int, ...]
    holdout: tuple[int, ...]

    @property
    def training(self) -> tuple[int, ...]:
        """All indices outside of the hold-out, for retraining."""
        return tuple(sorted(self.train_a + self.train_b))

    @property
    def digest(self) -> str:
        """The sha256 of the indices, in hex: the record of which image served for what."""
        parts = [self.train_a, self.train_b, self.holdout]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def require(self, digest: str) -> None:
        """Nothing where this is the digest; ValueError where a state was made with another split."""
        if digest != self.digest:
            raise ValueError("the checkpoint was made with another split of the training images: has the data changed?")


def random_split(num_images: int, *, holdout_share: float, max_holdout: int, seed: int) -> Split:
    """Halves of a training set that differ by one image at most, and a hold-out of at least one, from a seed.

    Raises:
        ValueError: too few images for three parts.
    """
    num_holdout = max(1, min(round(num_images * holdout_share), max_holdout))
    if num_images - num_holdout < 2:
        raise ValueError(
            f"{num_images} training images with holdout_share {holdout_share} leave {num_images - num_holdout} "
            "for trainA and trainB; each needs one: use more images or a smaller share"
        )
    order: list[int] = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed)).tolist()
    middle = num_holdout + (num_images - num_holdout + 1) // 2
    holdout, train_a, train_b = order[:num_holdout], order[num_holdout:middle], order[middle:]
    return Split(train_a=tuple(sorted(train_a)), train_b=tuple(sorted(train_b)), holdout=tuple(sorted(holdout)))
