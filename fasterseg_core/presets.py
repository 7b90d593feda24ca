"""Starting points of every kind of job: the paper's values, and QUICK ones, a smaller lattice for two CPU cores."""

from fasterseg_core.config import (
    PAPER_GRANULARITY_WEIGHTS,
    DatasetName,
    EvaluateConfig,
    ExportConfig,
    JobConfig,
    OptimizerConfig,
    ProfileConfig,
    RetrainConfig,
    SearchConfig,
    SgdConfig,
)
from fasterseg_core.search_space import Resolution, SearchSpace

_SPACE = SearchSpace(num_layers=6, expansion_ratios=(2, 3, 4), student_ratio=3)
_RESOLUTION = Resolution(height=360, width=480)

_QUICK_PROFILE = ProfileConfig(
    space=_SPACE,
    resolution=_RESOLUTION,
    dataset=DatasetName.STREET_SCENES,
    passes=3,
    samples=3,
    accept_noise=True,
    random_networks=12,
)
_QUICK_SEARCH = SearchConfig(
    space=_SPACE,
    dataset=DatasetName.STREET_SCENES,
    resolution=_RESOLUTION,
    crop=Resolution(height=128, width=160),
    batch_size=4,
    pretrain_epochs=3,
    epochs=6,
    steps_per_epoch=10,
    holdout_images=24,
    pretrain_optimizer=OptimizerConfig(learning_rate=0.05, decay=0.9),
    optimizer=OptimizerConfig(learning_rate=0.03, decay=0.9),
    architecture_learning_rate=0.02,
    num_workers=1,
)
_QUICK_RETRAIN = RetrainConfig(
    dataset=DatasetName.STREET_SCENES,
    resolution=_RESOLUTION,
    crop=Resolution(height=256, width=320),
    scales=(1.0,),
    batch_size=4,
    epochs=9,
    steps_per_epoch=80,
    holdout_images=16,
    evaluate_every=3,
    optimizer=SgdConfig(learning_rate=0.05),
    annealed_to=0.04,  # the paper's .008 leaves so few steps 3 points of mIoU behind (.384 against .415)
    num_workers=1,
)
_QUICK_EVALUATE = EvaluateConfig(dataset=DatasetName.STREET_SCENES, resolution=_RESOLUTION)
_QUICK_EXPORT = ExportConfig(resolution=_RESOLUTION, accept_noise=True)

# By job kind.
PAPER: dict[str, JobConfig] = {
    "profile": ProfileConfig(),
    "search": SearchConfig(granularity_weights=PAPER_GRANULARITY_WEIGHTS),
    "retrain": RetrainConfig(),
    "evaluate": EvaluateConfig(),
    "export": ExportConfig(),
}
QUICK: dict[str, JobConfig] = {
    "profile": _QUICK_PROFILE,
    "search": _QUICK_SEARCH,
    "retrain": _QUICK_RETRAIN,
    "evaluate": _QUICK_EVALUATE,
    "export": _QUICK_EXPORT,
}
