"""The segmentation loss, the search objective (eq. 8) and distillation (eq. 4)."""

import math

import torch.nn.functional as F
from torch import Tensor

from fasterseg_core.config import IGNORE_LABEL, Divergence, OhemConfig


def ohem_cross_entropy(logits: Tensor, labels: Tensor, config: OhemConfig) -> Tensor:
    """Cross-entropy with online hard example mining (appendix F), a scalar.

    A valid pixel counts where the probability of its class is at most the threshold, or among the `min_kept` lowest.
    Where fewer than `min_kept` pixels are valid, all of them count.

    Args:
        logits: (B, num_classes, H, W). labels: (B, H, W), IGNORE_LABEL where unknown.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="none")
    kept = labels != IGNORE_LABEL
    min_kept = labels.numel() // config.min_kept_divisor
    # The loss is -log(p), so the lowest probabilities are the highest losses; those of ignored pixels are 0.
    hardest = losses.detach().flatten().kthvalue(losses.numel() - max(min_kept, 1) + 1).values
    limit = hardest.clamp_max(-math.log(config.threshold))
    enough = kept.sum() > min_kept  # on the device: nothing waits for it
    kept = kept & ((losses.detach() >= limit) | ~enough)
    return (losses * kept).sum() / kept.sum().clamp_min(1)


def search_objective(segmentation_loss: Tensor, latency_ms: Tensor, latency_weight: float) -> Tensor:
    """L = Lseg + lambda * Lat (eq. 8)."""
    return segmentation_loss + latency_weight * latency_ms


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, direction: Divergence = Divergence.TEACHER_STUDENT
) -> Tensor:
    """KL(teacher, student) summed over classes, mean over labelled pixels (eq. 4), a scalar; or KL(student, teacher).

    Logits (B, num_classes, H, W), labels (B, H, W).
    """
    approximation, truth = F.log_softmax(student_logits, dim=1), F.log_softmax(teacher_logits, dim=1)
    if direction is Divergence.STUDENT_TEACHER:
        approximation, truth = truth, approximation
    divergence = F.kl_div(approximation, truth, reduction="none", log_target=True).sum(dim=1)
    valid = labels != IGNORE_LABEL
    return (divergence * valid).sum() / valid.sum().clamp_min(1)


def downsampled_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (B, H, W) at a map's size (B, h, w), nearest."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0].long()
