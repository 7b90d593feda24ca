"""The discrete network of an architecture, with the cells that its branches share merged (sec. 3.4)."""

from collections.abc import Mapping
from typing import TypedDict, cast

from torch import Tensor, nn

from fasterseg_core.architecture import Architecture, ArchitectureDocument
from fasterseg_core.checkpoint import CheckpointKind, pack, unpack
from fasterseg_core.operator_specs import range_down
from fasterseg_core.operators import DiscreteOperator, resize
from fasterseg_core.search_space import DOWNSAMPLE_RATES
from fasterseg_core.stem_head import BranchAggregation, FusedPrediction, Prediction, Stem


class NetworkState(TypedDict):
    """What a trained network is rebuilt from."""

    architecture: ArchitectureDocument
    num_classes: int
    weights: Mapping[str, Tensor]


class SegmentationNetwork(nn.Module):
    """Stem, branches of cells, head. Auxiliary predictions of the branches exist for training alone.

    `cells[0]` holds the first branch's operators in order, the shared ones included; `cells[1]` those of the second
    branch that follow the shared ones.
    """

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        ratio = architecture.head_ratio
        self.stem = Stem(architecture.stem_ratio * DOWNSAMPLE_RATES[0])
        self.cells = nn.ModuleList(
            nn.ModuleList(
                DiscreteOperator(
                    branch.cells[i].operator,
                    branch.in_channels(i, architecture.stem_ratio),
                    branch.out_channels(i),
                    branch.stride(i),
                )
                for i in range(architecture.num_shared_cells if number else 0, len(branch.cells))
            )
            for number, branch in enumerate(architecture.branches)
        )
        self.aggregations = nn.ModuleList(
            BranchAggregation(
                branch.downsample_rate,
                ratio,
                {
                    rate // 2: branch.in_channels(branch.downsampling_index(rate // 2), architecture.stem_ratio)
                    for rate in range_down(branch.downsample_rate)
                },
            )
            for branch in architecture.branches
        )
        self.head = FusedPrediction(len(architecture.branches), ratio, num_classes)
        self.auxiliary = nn.ModuleList(
            Prediction(ratio * rate, num_classes) for rate in architecture.rates if rate > DOWNSAMPLE_RATES[0]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes, H, W)."""
        return resize(self.coarse_logits(images), _size(images))

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes, H/8, W/8), sizes rounded up."""
        return self._coarse_logits(*self._branches(images))

    def training_logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, H, W) -> the head's logits (B, num_classes, H, W) and the auxiliary ones, at 1/8 of it."""
        outputs, finer = self._branches(images)
        coarse = [x for rate, x in zip(self.architecture.rates, outputs, strict=True) if rate > DOWNSAMPLE_RATES[0]]
        size = (-(-images.shape[2] // 8), -(-images.shape[3] // 8))
        auxiliary = [resize(head(x), size) for head, x in zip(self.auxiliary, coarse, strict=True)]
        return resize(self._coarse_logits(outputs, finer), _size(images)), auxiliary

    def num_parameters(self) -> int:
        """The parameters that inference uses: auxiliary predictions are left out."""
        training_only = sum(p.numel() for p in self.auxiliary.parameters())
        return sum(p.numel() for p in self.parameters()) - training_only

    def _branches(self, images: Tensor) -> tuple[list[Tensor], list[dict[int, Tensor]]]:
        """What each branch writes last, and its last map at each finer rate."""
        outputs: list[Tensor] = []
        finer: list[dict[int, Tensor]] = []
        maps: list[Tensor] = [self.stem(images)]  # maps[i]: what cell i of the current branch reads
        for branch, operators in zip(self.architecture.branches, self.cells, strict=True):
            assert isinstance(operators, nn.ModuleList)
            if outputs:
                maps = maps[: self.architecture.num_shared_cells + 1]
            for operator in operators:
                maps.append(operator(maps[-1]))
            outputs.append(maps[-1])
            rates = [source // 2 for source in range_down(branch.downsample_rate)]
            finer.append({rate: maps[branch.downsampling_index(rate)] for rate in rates})
        return outputs, finer

    def _coarse_logits(self, outputs: list[Tensor], finer: list[dict[int, Tensor]]) -> Tensor:
        steps = zip(self.aggregations, outputs, finer, strict=True)
        logits: Tensor = self.head([aggregate(x, maps) for aggregate, x, maps in steps])
        return logits


def save_network(network: SegmentationNetwork) -> bytes:
    """A trained network as one blob: architecture, classes and weights."""
    state = {
        "architecture": network.architecture.to_document(),
        "num_classes": network.num_classes,
        "weights": network.state_dict(),
    }
    return pack(state, CheckpointKind.NETWORK)


def load_network(blob: bytes) -> SegmentationNetwork:
    """The network of a blob, on the CPU, in evaluation mode; nothing in a blob is ever executed.

    Raises:
        CheckpointError: the blob is no network.
    """
    saved = cast(NetworkState, unpack(blob, CheckpointKind.NETWORK))
    network = SegmentationNetwork(Architecture.from_document(saved["architecture"]), saved["num_classes"])
    network.load_state_dict(saved["weights"])
    return network.eval()


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
