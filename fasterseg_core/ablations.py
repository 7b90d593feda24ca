"""The networks that Table 3 compares with a student, as changes of a derived architecture."""

from dataclasses import replace

from fasterseg_core.architecture import Architecture, Branch
from fasterseg_core.config import Pruning, RetrainConfig


def trained_architecture(config: RetrainConfig, architecture: Architecture) -> Architecture:
    """What a retraining of this architecture trains; ValueError where it has no such branch."""
    if config.branch is not None:
        architecture = single_branch(architecture, config.branch)
    return architecture if config.pruning is None else pruned(architecture, config.pruning)


def single_branch(architecture: Architecture, rate: int) -> Architecture:
    """The branch whose output has this rate, alone (b = 1); ValueError where there is none."""
    kept = tuple(branch for branch in architecture.branches if branch.downsample_rate == rate)
    if not kept:
        raise ValueError(f"branch {rate}: this architecture has branches of rates {list(architecture.rates)}")
    return replace(architecture, branches=kept)


def pruned(architecture: Architecture, pruning: Pruning) -> Architecture:
    """The same operators and paths at the slimmest ratio ("pruned T", sec. 4.3); stem and head have the end's ratio."""

    def slim(branch: Branch) -> Branch:
        *inner, last = branch.cells
        cells = [replace(cell, expansion_ratio=pruning.expansion_ratio) for cell in inner]
        return Branch((*cells, replace(last, expansion_ratio=pruning.end_ratio)))

    return Architecture(stem_ratio=pruning.end_ratio, branches=tuple(slim(branch) for branch in architecture.branches))
