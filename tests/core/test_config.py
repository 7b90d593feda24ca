from operator import attrgetter

import pytest

from fasterseg_core.config import (
    NUM_CLASSES,
    PAPER_GRANULARITY_WEIGHTS,
    CollapsePolicy,
    DatasetName,
    Engine,
    EvaluateConfig,
    ExportConfig,
    NetworkOutput,
    OhemConfig,
    OptimizerConfig,
    Precision,
    ProfileConfig,
    Pruning,
    RetrainConfig,
    SearchConfig,
)
from fasterseg_core.search_space import Resolution, SearchSpace

FULL = Resolution(height=1024, width=2048)

# Field, value, and where it comes from; "reference" is the published code.
DEFAULTS = [
    (SearchConfig, "space.num_layers", 16, "sec. 4.2"),
    (SearchConfig, "space.expansion_ratios", (4, 6, 8, 10, 12), "sec. 4.2"),
    (SearchConfig, "space.student_ratio", 8, "reference"),
    (SearchConfig, "space.teacher_ratio", 12, "sec. 3.3"),
    (SearchConfig, "dataset", DatasetName.CITYSCAPES, "sec. 4.1"),
    (SearchConfig, "resolution", FULL, "sec. 4.1"),
    (SearchConfig, "image_scale", 0.5, "app. H"),
    (SearchConfig, "crop", Resolution(height=160, width=320), "app. H"),
    (SearchConfig, "pretrain_epochs", 20, "app. F"),
    (SearchConfig, "epochs", 30, "app. F"),
    (SearchConfig, "latency_weight", 0.01, "app. F"),
    (SearchConfig, "architecture_learning_rate", 3e-4, "app. H"),
    (SearchConfig, "temperature", 1.0, "app. C"),
    (SearchConfig, "target_latency_ms", None, "app. F has lambda alone"),
    (SearchConfig, "target_exponent", -0.07, "app. B"),
    (SearchConfig, "optimizer.momentum", 0.9, "app. H"),
    (SearchConfig, "optimizer.weight_decay", 5e-4, "app. H"),
    (SearchConfig, "optimizer.decay", 0.99, "app. H"),
    (SearchConfig, "optimizer.learning_rate", 0.01, "reference"),
    (SearchConfig, "pretrain_optimizer.decay", 0.99, "app. H"),
    (SearchConfig, "pretrain_optimizer.learning_rate", 0.02, "reference"),
    (SearchConfig, "architecture_betas", (0.5, 0.999), "reference"),
    (SearchConfig, "batch_size", 2, "reference"),
    (SearchConfig, "granularity_weights", None, "sec. 3.2, footnote 1: balanced on the table"),
    (RetrainConfig, "distillation_weight", 1.0, "sec. 3.3"),
    (RetrainConfig, "auxiliary_weight", 0.2, "reference"),
    (RetrainConfig, "crop", Resolution(height=512, width=1024), "reference"),
    (RetrainConfig, "scales", (0.75, 1.0, 1.25), "reference"),
    (RetrainConfig, "batch_size", 12, "reference"),
    (RetrainConfig, "optimizer.learning_rate", 0.01, "reference"),
    (RetrainConfig, "annealed_to", 0.992**600, "reference"),
    (OhemConfig, "threshold", 0.7, "reference"),
    (OhemConfig, "min_kept_divisor", 16, "reference"),
    (ProfileConfig, "resolution", FULL, "sec. 4.1"),
    (EvaluateConfig, "resolution", FULL, "sec. 4.1"),
    (ExportConfig, "resolution", FULL, "sec. 4.1"),
    (RetrainConfig, "epochs", 600, "reference"),
    (RetrainConfig, "steps_per_epoch", 1000, "reference"),
]


@pytest.mark.parametrize(
    ("config", "field", "expected", "source"), DEFAULTS, ids=[f"{row[0].__name__}.{row[1]}" for row in DEFAULTS]
)
def test_the_defaults_are_the_papers(config, field, expected, source):
    assert attrgetter(field)(config()) == expected, source


def test_the_papers_weights_of_equation_3_are_a_preset():
    assert PAPER_GRANULARITY_WEIGHTS == (0.001, 0.997, 0.002)
    assert sum(PAPER_GRANULARITY_WEIGHTS) == 1


def test_classes_are_counted_as_in_appendix_g():
    assert NUM_CLASSES == {
        DatasetName.CITYSCAPES: 19,
        DatasetName.BDD100K: 19,
        DatasetName.CAMVID: 11,
        DatasetName.CAMVID_720: 11,
        DatasetName.STREET_SCENES: 11,
    }


def an_optimizer(**changes):
    return OptimizerConfig(**{"learning_rate": 0.01, "decay": 0.99, **changes})


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (SearchConfig, "image_scale", 0),
        (SearchConfig, "batch_size", 0),
        (SearchConfig, "pretrain_epochs", -1),
        (SearchConfig, "epochs", 0),
        (SearchConfig, "steps_per_epoch", 0),
        (SearchConfig, "holdout_share", 0),
        (SearchConfig, "holdout_share", 1),
        (SearchConfig, "holdout_images", 0),
        (SearchConfig, "temperature", 0),
        (SearchConfig, "latency_weight", -0.1),
        (SearchConfig, "architecture_learning_rate", -1e-4),
        (SearchConfig, "granularity_weights", (0.5, 0.6, -0.1)),
        (SearchConfig, "target_latency_ms", 0),
        (SearchConfig, "batch_size", float("nan")),
        (RetrainConfig, "batch_size", 0),
        (RetrainConfig, "epochs", 0),
        (RetrainConfig, "steps_per_epoch", 0),
        (RetrainConfig, "scales", ()),
        (RetrainConfig, "scales", (1.0, 0.0)),
        (RetrainConfig, "holdout_share", 1),
        (RetrainConfig, "holdout_images", 0),
        (RetrainConfig, "evaluate_every", 0),
        (RetrainConfig, "auxiliary_weight", -0.1),
        (RetrainConfig, "distillation_weight", -0.1),
        (RetrainConfig, "annealed_to", 0),
        (RetrainConfig, "branch", 4),
        (RetrainConfig, "jitter", -0.1),
        (RetrainConfig, "num_workers", 0),
        (SearchConfig, "num_workers", 0),
        (Pruning, "expansion_ratio", 0),
        (Pruning, "end_ratio", 10**7),
        (ProfileConfig, "threads", 0),
        (ProfileConfig, "passes", 0),
        (ProfileConfig, "samples", 0),
        (EvaluateConfig, "pictures", 0),
        (ExportConfig, "threads", 0),
        (ExportConfig, "samples", 0),
        (OhemConfig, "threshold", 0),
        (OhemConfig, "threshold", 1),
        (OhemConfig, "min_kept_divisor", 0),
        (an_optimizer, "learning_rate", 0),
        (an_optimizer, "decay", 0),
        (an_optimizer, "gradient_clip", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_field(config, field, value):
    with pytest.raises(ValueError, match=f"^{field} "):
        config(**{field: value})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"image_scale": 1e-6}, "image_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"architecture_betas": (5.0, 0.9)}, "architecture_betas"),
        ({"target_exponent": float("inf")}, "target_exponent"),
        ({"latency_weight": float("inf")}, "latency_weight"),
        ({"target_latency_ms": 5.0, "collapse_policy": CollapsePolicy.HALVE_LAMBDA}, "collapse_policy halve_lambda"),
        ({"target_latency_ms": 5.0, "granularity_weights": (0.0, 0.0, 0.0)}, "granularity_weights are all 0"),
        ({"space": SearchSpace(expansion_ratios=(4,), student_ratio=4)}, "granularity_weights"),
    ],
)
def test_values_that_no_search_can_use_are_refused_by_name(changes, field):
    with pytest.raises(ValueError, match=field):
        SearchConfig(**changes)


@pytest.mark.parametrize("changes", [{"momentum": -5}, {"weight_decay": -1}, {"learning_rate": float("inf")}])
def test_an_optimizer_that_cannot_work_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        OptimizerConfig(**{"learning_rate": 0.1, "decay": 0.9, **changes})


@pytest.mark.parametrize("changes", [{"threads": 100_000}, {"samples": 10**8}, {"random_networks": 10**9}])
def test_a_measurement_without_end_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ProfileConfig(**changes)


@pytest.mark.parametrize(("part", "parts"), [(0, 3), (4, 3), (1, 101), (1, 0)])
def test_a_part_that_is_none_of_its_parts_is_refused(part, parts):
    with pytest.raises(ValueError, match=f"part {part} of {parts} parts"):
        ProfileConfig(part=part, parts=parts, random_networks=0)


def test_a_part_of_a_table_cannot_be_compared_with_networks():
    with pytest.raises(ValueError, match="random_networks need a whole table"):
        ProfileConfig(part=1, parts=3)


@pytest.mark.parametrize("config", [ProfileConfig, ExportConfig])
def test_a_precision_that_the_engine_does_not_measure_is_refused(config):
    with pytest.raises(ValueError, match="precision fp16 is measured on GPUs, openvino measures fp32"):
        config(engine=Engine.OPENVINO, precision=Precision.FP16)

    assert config(engine=Engine.TENSORRT, precision=Precision.FP16).precision is Precision.FP16


@pytest.mark.parametrize("engine", [Engine.TENSORRT, Engine.TORCH_CUDA])
def test_labels_are_refused_for_gpus_with_what_to_export_instead(engine):
    with pytest.raises(ValueError, match=f"output labels .* for {engine} export coarse_logits"):
        ExportConfig(engine=engine, output=NetworkOutput.LABELS)


@pytest.mark.parametrize("changes", [{"num_layers": 100_000}, {"expansion_ratios": (4, 10**12), "student_ratio": 4}])
def test_a_space_too_large_to_hold_is_refused(changes):
    with pytest.raises(ValueError, match="num_layers|expansion_ratios"):
        SearchSpace(**changes)
