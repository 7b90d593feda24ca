"""Experiments as frozen values, one per job kind. The defaults are the paper's; `quick` ones fit two CPU cores.

"reference" marks a value that the paper leaves open and that is read from the published code (docs/paper-notes.md).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from fasterseg_core.search_space import DOWNSAMPLE_RATES, LARGEST_RATIO, SMALLEST_SIDE, Resolution, SearchSpace


class DatasetName(StrEnum):
    """The data sets that can be loaded (appendix G), and generated street scenes with CamVid's classes."""

    STREET_SCENES = "street_scenes"
    CAMVID = "camvid"  # SegNet layout, 360 x 480
    CAMVID_720 = "camvid_720x960"
    CITYSCAPES = "cityscapes"
    BDD100K = "bdd100k"


NUM_CLASSES = {
    DatasetName.STREET_SCENES: 11,
    DatasetName.CAMVID: 11,
    DatasetName.CAMVID_720: 11,
    DatasetName.CITYSCAPES: 19,
    DatasetName.BDD100K: 19,
}

IGNORE_LABEL = 255  # void pixels and padding, in every data set


class Engine(StrEnum):
    """The inference engines that can measure latency; none ever stands in for another."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TORCH_CUDA = "torch_cuda"
    TENSORRT = "tensorrt"


CPU_ENGINES = (Engine.ONNXRUNTIME, Engine.OPENVINO)


class Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"


class NetworkOutput(StrEnum):
    """What an exported network gives for an image."""

    LOGITS = "logits"  # of every pixel, as trained and evaluated; what latency tables predict
    COARSE_LOGITS = "coarse_logits"  # at 1/8 of the image: what the head computes
    LABELS = "labels"  # the class of every pixel


class Arithmetic(StrEnum):
    """What a training computes in; weights, losses and optimisers are float32 in either."""

    FP32 = "fp32"
    BF16 = "bf16"  # autocast


class CollapsePolicy(StrEnum):
    """What a search does when its student collapses to trivial networks (sec. 3.2)."""

    WARN = "warn"
    HALVE_LAMBDA = "halve_lambda"  # of the epochs that follow
    STOP = "stop"  # with an error


class Role(StrEnum):
    """The two networks of a co-search (sec. 3.3)."""

    TEACHER = "teacher"
    STUDENT = "student"


class Divergence(StrEnum):
    """What distillation makes small."""

    TEACHER_STUDENT = "teacher_student"  # KL(teacher, student), as in the reference and in common practice
    STUDENT_TEACHER = "student_teacher"  # KL(student, teacher), as eq. 4 is printed


def _positive(config: object, *names: str, at_most: float = 1e6) -> None:
    for name in names:
        if not 0 < getattr(config, name) <= at_most:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be positive, at most {at_most:g}")


def _not_negative(config: object, *names: str, at_most: float = 1e6) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= at_most:
            raise ValueError(f"{name} is {getattr(config, name)}; it must not be negative, and at most {at_most:g}")


def _share(config: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must lie between 0 and 1")


def _measuring(config: "ProfileConfig | ExportConfig") -> None:
    """What both kinds of job that measure have in common."""
    _positive(config, "threads", at_most=1024)
    _positive(config, "passes", "samples", at_most=10_000)
    if config.precision is not Precision.FP32 and config.engine in CPU_ENGINES:
        raise ValueError(f"precision {config.precision} is measured on GPUs, {config.engine} measures fp32")


def _training(config: "SearchConfig | RetrainConfig") -> None:
    """What both kinds of training have in common."""
    _positive(config, "batch_size", "epochs", "holdout_images")
    _positive(config, "num_workers", at_most=64)
    _not_negative(config, "jitter", at_most=1)
    _share(config, "holdout_share")
    _steps(config.steps_per_epoch)
    if not 0 <= config.seed < 2**63:
        raise ValueError(f"seed is {config.seed}; it must lie between 0 and 2**63 - 1")


def _steps(steps_per_epoch: int | None) -> None:
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch is {steps_per_epoch}; it must be positive, or null for one pass")


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """The latency table of one device: every operator of the space at one resolution (appendix E)."""

    space: SearchSpace = field(default_factory=SearchSpace)
    resolution: Resolution = field(default_factory=lambda: Resolution(height=1024, width=2048))  # sec. 4.1
    dataset: DatasetName = DatasetName.CITYSCAPES  # its number of classes sets the prediction's width
    engine: Engine = Engine.ONNXRUNTIME
    precision: Precision = Precision.FP32
    threads: int = 1  # CPU engines only
    passes: int = 5  # over all operators, interleaved
    samples: int = 5  # of each operator in each pass; a row is the lower quartile of all
    alone: bool = False  # operators by themselves, as in published tables, not between neighbours as in a network
    accept_noise: bool = False  # keep, for tries, also the times that a restless machine makes doubtful
    random_networks: int = 8  # measured whole, to compare with their estimates (Figure 3); 0 for none
    calibration_networks: int = 8  # others, measured whole to fit the correction of estimates
    part: int = 1  # of the rows, each `parts`th of them, so that several devices of one kind share the work
    parts: int = 1

    def __post_init__(self) -> None:
        _measuring(self)
        _not_negative(self, "random_networks", at_most=1000)
        if not 3 <= self.calibration_networks <= 1000:
            raise ValueError(f"calibration_networks is {self.calibration_networks}; it must lie between 3 and 1000")
        if self.random_networks == 1:
            raise ValueError(f"random_networks is {self.random_networks}; a comparison needs 2 or more, 0 skips it")
        if not 1 <= self.part <= self.parts <= 100:
            raise ValueError(f"part {self.part} of {self.parts} parts: number them from 1, with at most 100")
        if self.parts > 1 and self.random_networks:
            raise ValueError("random_networks need a whole table: set them to 0 for a part of one")


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """SGD on weights (appendix H): momentum 0.9, weight decay 5e-4."""

    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0  # norm; reference

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "gradient_clip")
        _not_negative(self, "momentum", "weight_decay", at_most=1)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(SgdConfig):
    """SGD whose learning rate is multiplied by `decay` after each epoch (appendix H)."""

    decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "decay")


@dataclass(frozen=True, kw_only=True)
class OhemConfig:
    """Online hard example mining: pixels with a true-class probability under `threshold`, at least a share of all.

    `min_kept_divisor` d keeps at least N*H*W / d pixels (reference: 16).
    """

    threshold: float = 0.7
    min_kept_divisor: int = 16

    def __post_init__(self) -> None:
        _positive(self, "min_kept_divisor")
        _share(self, "threshold")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Pretraining and alternating co-search of a teacher and a student (sec. 3.2, 3.3, appendices B, F, H)."""

    space: SearchSpace = field(default_factory=SearchSpace)
    dataset: DatasetName = DatasetName.CITYSCAPES
    resolution: Resolution = field(default_factory=lambda: Resolution(height=1024, width=2048))  # the device's
    image_scale: float = 0.5  # of that resolution, in training (appendix H)
    crop: Resolution = field(default_factory=lambda: Resolution(height=160, width=320))  # appendix H
    batch_size: int = 2  # reference
    pretrain_epochs: int = 20  # appendix F
    epochs: int = 30  # appendix F
    steps_per_epoch: int | None = None  # None: one pass over trainA
    holdout_share: float = 0.1  # of the training images, for branch selection; the rest is halved
    holdout_images: int = 64  # at most
    pretrain_optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.02, decay=0.99)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=0.01, decay=0.99)
    architecture_learning_rate: float = 3e-4  # appendix H
    architecture_betas: tuple[float, float] = (0.5, 0.999)  # reference
    temperature: float = 1.0  # tau, appendix C
    latency_weight: float = 0.01  # lambda, appendix F; a target_latency_ms replaces it
    target_latency_ms: float | None = None  # of the derived student, on the table; None: whatever lambda gives
    granularity_weights: tuple[float, float, float] | None = None  # w1, w2, w3 of eq. 3; None: balanced on the table
    target_exponent: float = -0.07  # alpha = beta of eq. 6
    collapse_policy: CollapsePolicy = CollapsePolicy.WARN
    arithmetic: Arithmetic = Arithmetic.FP32
    cuda_graphs: bool = False  # of every pass, on CUDA
    ohem: OhemConfig = OhemConfig()
    jitter: float = 0.0  # of brightness, contrast and saturation, in training
    num_workers: int = 2  # threads that prepare batches; they change no result
    seed: int = 0

    def __post_init__(self) -> None:
        _training(self)
        _positive(self, "temperature")
        if self.target_latency_ms is not None:
            _positive(self, "target_latency_ms")
        _positive(self, "image_scale", at_most=4)
        _not_negative(self, "pretrain_epochs", "latency_weight", "architecture_learning_rate")
        height, width = (round(side * self.image_scale) for side in (self.resolution.height, self.resolution.width))
        if min(height, width) < SMALLEST_SIDE:
            raise ValueError(f"image_scale {self.image_scale} makes images of {height}x{width}: too small for scale 32")
        if not all(0 <= beta < 1 for beta in self.architecture_betas):
            raise ValueError(f"architecture_betas {self.architecture_betas} must lie between 0 and 1")
        if not abs(self.target_exponent) <= 10:
            raise ValueError(f"target_exponent is {self.target_exponent}; it must lie between -10 and 10")
        if self.target_latency_ms is not None and self.collapse_policy is CollapsePolicy.HALVE_LAMBDA:
            raise ValueError("collapse_policy halve_lambda needs a fixed latency_weight: target_latency_ms replaces it")
        if self.granularity_weights is None and len(self.space.expansion_ratios) == 1:
            raise ValueError("granularity_weights: one expansion ratio cannot be balanced against others; give weights")
        if self.target_latency_ms is not None and self.granularity_weights == (0, 0, 0):
            raise ValueError("granularity_weights are all 0: no target_latency_ms can be held by them; leave them null")
        if self.granularity_weights is not None and not all(0 <= w <= 1e6 for w in self.granularity_weights):
            raise ValueError(f"granularity_weights {self.granularity_weights} must not be negative")


PAPER_GRANULARITY_WEIGHTS = (0.001, 0.997, 0.002)  # eq. 3


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """The widths of the pruned teacher in Table 3: the space's slimmest ratio, and the student's at stem and head."""

    expansion_ratio: int = 4
    end_ratio: int = 8

    def __post_init__(self) -> None:
        _positive(self, "expansion_ratio", "end_ratio", at_most=LARGEST_RATIO)


@dataclass(frozen=True, kw_only=True)
class RetrainConfig:
    """A derived network trained from scratch; the student is distilled where a teacher is given (sec. 3.3, eq. 4)."""

    role: Role = Role.STUDENT
    branch: int | None = None  # the rate of the only branch that is kept (Table 3, b = 1); None: all
    pruning: Pruning | None = None  # of the architecture (Table 3, pruned T), whose own network may teach it
    dataset: DatasetName = DatasetName.CITYSCAPES
    resolution: Resolution = field(default_factory=lambda: Resolution(height=1024, width=2048))
    crop: Resolution = field(default_factory=lambda: Resolution(height=512, width=1024))  # reference
    scales: tuple[float, ...] = (0.75, 1.0, 1.25)  # reference
    batch_size: int = 12  # reference
    epochs: int = 600  # reference
    steps_per_epoch: int | None = 1000  # reference; None: one pass over the training set
    holdout_share: float = 0.1  # of the training images; the best epoch is chosen on it
    holdout_images: int = 64  # at most
    evaluate_every: int = 10  # epochs
    optimizer: SgdConfig = SgdConfig(learning_rate=0.01)  # reference
    annealed_to: float = 0.992**600  # the learning rate's share at the end; reference: x .992 after each of 600 epochs
    auxiliary_weight: float = 0.2  # reference
    distillation_weight: float = 1.0  # sec. 3.3
    distillation: Divergence = Divergence.TEACHER_STUDENT  # reference
    ohem: OhemConfig = OhemConfig()
    jitter: float = 0.0  # of brightness, contrast and saturation
    num_workers: int = 4  # threads that prepare batches; they change no result
    seed: int = 0

    def __post_init__(self) -> None:
        _training(self)
        _positive(self, "evaluate_every")
        _not_negative(self, "auxiliary_weight", "distillation_weight")
        _share(self, "annealed_to")
        if self.branch is not None and self.branch not in DOWNSAMPLE_RATES:
            raise ValueError(
                f"branch is {self.branch}; it must be one of the rates {DOWNSAMPLE_RATES}, or null for all"
            )
        if not self.scales or not all(0.1 <= scale <= 4 for scale in self.scales):
            raise ValueError(f"scales {self.scales} must lie between 0.1 and 4")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Class mIoU on the validation set (sec. 4.1), beside an untrained network and the best constant prediction."""

    dataset: DatasetName = DatasetName.CITYSCAPES
    resolution: Resolution = field(default_factory=lambda: Resolution(height=1024, width=2048))
    pictures: int = 6  # rows of the image | truth | prediction picture (Figure 7)

    def __post_init__(self) -> None:
        _positive(self, "pictures", at_most=100)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A trained network as ONNX, checked against torch and measured on an engine."""

    output: NetworkOutput = NetworkOutput.LOGITS
    resolution: Resolution = field(default_factory=lambda: Resolution(height=1024, width=2048))
    engine: Engine = Engine.ONNXRUNTIME
    precision: Precision = Precision.FP32
    threads: int = 1
    passes: int = 5
    samples: int = 5
    accept_noise: bool = False  # as in a profile

    def __post_init__(self) -> None:
        _measuring(self)
        if self.output is NetworkOutput.LABELS and self.engine not in CPU_ENGINES:
            raise ValueError(f"output labels is made for CPUs; for {self.engine} export coarse_logits, and take argmax")


JobConfig = ProfileConfig | SearchConfig | RetrainConfig | EvaluateConfig | ExportConfig
