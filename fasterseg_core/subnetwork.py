"""The derived network inside the supernet: its weights are slices of the supernet's (sec. 3.4, appendix B)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fasterseg_core.config import Role
from fasterseg_core.derive import Derivation
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.operators import DiscreteOperator, IdentitySkip
from fasterseg_core.search_space import BRANCH_PAIRS, OPERATORS
from fasterseg_core.supernet import Supernet, pair_key


def subnetwork(supernet: Supernet, role: Role, derivation: Derivation) -> SegmentationNetwork:
    """The network of a pair of branches with the supernet's weights; batch norms want `recalibrate`."""
    architecture, ends = derivation.architecture, supernet.end_modules(role)
    pair = next(pair for pair in BRANCH_PAIRS if pair == architecture.rates)
    network = SegmentationNetwork(architecture, supernet.num_classes).to(next(supernet.parameters()).device)
    _copy(network.stem, ends.stem)
    for number, (branch, layers) in enumerate(zip(architecture.branches, derivation.layers, strict=True)):
        first = architecture.num_shared_cells if number else 0
        operators = network.cells[number]
        assert isinstance(operators, nn.ModuleList)
        for index, operator in enumerate(operators, start=first):
            assert isinstance(operator, DiscreteOperator)
            cell = supernet.cell(branch.cells[index].downsample_rate, layers[index])
            mixed = cell.keep if branch.stride(index) == 1 else cell.down
            assert mixed is not None
            candidate = mixed.candidates[OPERATORS.index(branch.cells[index].operator)]
            if not isinstance(operator.operator, IdentitySkip):
                width = supernet.space.expansion_ratios.index(branch.cells[index].expansion_ratio)
                _copy(operator.operator, candidate, norm=width)
    for aggregation, rate in zip(network.aggregations, pair, strict=True):
        _copy(aggregation, ends.aggregations[str(rate)])
    _copy(network.head, ends.pairs[pair_key(pair)])
    coarse = [rate for rate in pair if rate > 8]
    for auxiliary, rate in zip(network.auxiliary, coarse, strict=True):
        _copy(auxiliary, ends.singles[str(rate)])
    return network


def recalibrate(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Sets every batch norm's statistics to their mean over batches (B, 3, H, W): a sub-network has its own."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    training = network.training
    network.train()
    with torch.no_grad():
        for batch in images:
            network(batch)
    network.train(training)
    for norm in norms:
        norm.momentum = 0.1


def _copy(target: nn.Module, source: nn.Module, norm: int = 0) -> None:
    """Copies a module's state from a wider one's: the first channels, and the batch norm of the width in use."""
    state = source.state_dict()
    sliced = {}
    for name, value in target.state_dict().items():
        wider = state[name.replace("norms.0.", f"norms.{norm}.")]
        sliced[name] = wider[tuple(slice(size) for size in value.shape)]
    target.load_state_dict(sliced)
