from itertools import islice

import pytest
import torch

from fasterseg_core.checkpoint import CheckpointKind, pack, unpack
from fasterseg_core.config import Divergence, OhemConfig, Pruning, RetrainConfig
from fasterseg_core.datasets.batches import evaluation_batches
from fasterseg_core.datasets.transforms import EvaluationTransform
from fasterseg_core.evaluation import evaluate
from fasterseg_core.network import SegmentationNetwork
from fasterseg_core.reports import DivergedError, EpochReport, StepReport
from fasterseg_core.retrain import Retrain, learning_rate
from tests.builders import ColourBlocks, a_resolution, a_retrain_config, an_architecture

ARCHITECTURE = an_architecture("conv 8 1, conv 8 2", "conv 8 1, zoomed_conv 8 1, conv 16 2")


def a_retraining(data=None, teacher=None, **changes):
    return Retrain(
        a_retrain_config(**changes), ARCHITECTURE, data or ColourBlocks(num_images=8), torch.device("cpu"), teacher
    )


def a_teacher(num_classes=3, seed=7):
    torch.manual_seed(seed)
    return SegmentationNetwork(an_architecture("conv 8 3", stem_ratio=3), num_classes)


def saved(retraining):
    """A state after a trip through a file that may hold no code."""
    return unpack(pack(retraining.state_dict(), CheckpointKind.RETRAINING), CheckpointKind.RETRAINING)


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    assert [name for name, value in state.items() if not torch.equal(value, expected[name])] == []


def learning_rates(retraining):
    """Of each step."""
    return [retraining.optimizer.param_groups[0]["lr"] for report in retraining.run() if isinstance(report, StepReport)]


def parameters(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.fixture(scope="module")
def finished():
    """A whole retraining of 3 epochs with a teacher: its reports, and the state after it."""
    retraining = a_retraining(teacher=a_teacher(), epochs=3)
    return list(retraining.run()), retraining


def test_it_reports_every_step_and_epoch(finished):
    reports, _ = finished

    assert [(type(r), r.epoch) for r in reports] == [
        (kind, epoch) for epoch in (1, 2, 3) for kind in (StepReport, StepReport, EpochReport)
    ]
    assert [r.fraction for r in reports if isinstance(r, StepReport)] == pytest.approx([i / 6 for i in range(1, 7)])
    assert {(r.steps, r.epochs, r.phase) for r in reports if isinstance(r, StepReport)} == {(2, 3, "retrain")}


def test_an_epochs_loss_is_the_mean_of_its_steps(finished):
    reports, retraining = finished

    assert [epoch.loss for epoch in reports[2::3]] == pytest.approx(
        [(first.loss + second.loss) / 2 for first, second in zip(reports[::3], reports[1::3], strict=True)]
    )
    assert retraining.history == reports[2::3]


def test_the_loss_falls_and_the_network_beats_chance():
    retraining = a_retraining(
        epochs=10, steps_per_epoch=4, evaluate_every=10, batch_size=3, ohem=OhemConfig(min_kept_divisor=1)
    )

    epochs = [report for report in retraining.run() if isinstance(report, EpochReport)]

    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert epochs[-1].miou > 0.4


@pytest.mark.parametrize("reports_seen", [1, 2, 3, 4, 9])
def test_it_continues_from_any_report_as_if_it_had_not_stopped(finished, reports_seen):
    reports, whole = finished
    stopped = a_retraining(teacher=a_teacher(), epochs=3)
    assert list(islice(stopped.run(), reports_seen)) == reports[:reports_seen]

    again = a_retraining(teacher=a_teacher(), epochs=3)
    again.load_state_dict(saved(stopped))

    assert list(again.run()) == reports[reports_seen:]
    assert again.history == whole.history
    assert again.best_miou == whole.best_miou
    assert_equal(again.best, whole.best)
    assert_equal(again.state_dict()["network"], whole.state_dict()["network"])


def test_a_checkpoint_of_other_images_is_refused():
    state = saved(a_retraining())

    with pytest.raises(ValueError, match="another split of the training images"):
        a_retraining(ColourBlocks(num_images=9)).load_state_dict(state)


def test_the_best_network_is_the_one_that_scored_best_on_the_holdout():
    retraining = a_retraining(epochs=4)
    mious = [report.miou for report in retraining.run() if isinstance(report, EpochReport)]

    best, last = retraining.best_network(), retraining.last_network()

    assert_equal(last.state_dict(), retraining.network.state_dict())
    assert retraining.best_epoch == 1 + mious.index(max(mious))
    held_out = evaluation_batches(
        retraining.data, retraining.split.holdout, EvaluationTransform(a_resolution()), batch_size=2
    )
    assert not best.training
    assert evaluate(best, held_out, 3).miou == max(mious) == retraining.best_miou


def test_the_best_weights_stay_when_training_goes_on():
    retraining = a_retraining(epochs=2)
    run = retraining.run()
    list(islice(run, 3))
    best = {name: value.clone() for name, value in retraining.best.items()}

    next(run)

    assert_equal(retraining.best, best)
    assert not torch.equal(retraining.network.stem[0][0].weight, best["stem.0.0.weight"])


def test_the_holdout_is_evaluated_now_and_then_and_at_the_end():
    retraining = a_retraining(epochs=5, steps_per_epoch=1, evaluate_every=2)

    epochs = [report for report in retraining.run() if isinstance(report, EpochReport)]

    assert [epoch.miou is not None for epoch in epochs] == [False, True, False, True, True]


def test_the_learning_rate_falls_within_an_epoch():
    retraining = a_retraining(epochs=2)

    rates = learning_rates(retraining)

    assert rates == pytest.approx([0.01 * 0.9**progress for progress in (0, 0.5, 1, 1.5)])


def test_the_paper_preset_has_the_published_learning_rate_at_the_beginning_of_each_epoch():
    paper = RetrainConfig()

    rates = [learning_rate(paper, epoch / paper.epochs) for epoch in range(601)]

    assert rates == pytest.approx([0.01 * 0.992**epoch for epoch in range(601)])
    assert rates[-1] == pytest.approx(0.008 * rates[0], rel=0.02)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (3, 2), (2, 1)])
def test_a_run_of_any_length_anneals_to_the_same_share(epochs, steps):
    rates = learning_rates(a_retraining(epochs=epochs, steps_per_epoch=steps, annealed_to=0.01))

    one_step_more = rates[-1] * 0.01 ** (1 / (epochs * steps))
    assert one_step_more == pytest.approx(0.01 * 0.01)


def test_it_never_trains_on_the_holdout():
    retraining = a_retraining(ColourBlocks(num_images=12), holdout_share=0.25)

    assert len(retraining.split.holdout) == 3
    assert not set(retraining.split.holdout) & set(retraining.split.training)


# ---- distillation ----


def test_a_teacher_adds_the_weighted_divergence_to_the_loss():
    losses = [
        next(a_retraining(teacher=teacher, distillation_weight=weight).run()).loss
        for teacher, weight in ((None, 1.0), (a_teacher(), 0.0), (a_teacher(), 1.0), (a_teacher(), 2.0))
    ]

    plain, unweighted, once, twice = losses
    assert unweighted == plain
    assert once > plain
    assert twice - plain == pytest.approx(2 * (once - plain), rel=1e-4)


def test_the_student_learns_from_its_teacher():
    alone, taught, otherwise = (
        a_retraining(),
        a_retraining(teacher=a_teacher()),
        a_retraining(teacher=a_teacher(seed=8)),
    )

    for retraining in (alone, taught, otherwise):
        next(retraining.run())

    first, second, third = (r.network.head.prediction[1].weight for r in (alone, taught, otherwise))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_the_teacher_stays_as_it_is():
    teacher = a_teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    next(a_retraining(teacher=teacher).run())

    assert_equal(teacher.state_dict(), before)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="teacher: it predicts 5 classes, the data has 3"):
        a_retraining(teacher=a_teacher(num_classes=5))


def test_distillation_has_two_directions():
    plain, *taught = (
        next(a_retraining(teacher=teacher, distillation=direction).run()).loss
        for teacher, direction in ((None, Divergence.TEACHER_STUDENT), *((a_teacher(), d) for d in Divergence))
    )

    assert min(taught) > plain
    assert len(set(taught)) == 2


# ---- the rows of Table 3 ----


def test_one_branch_alone_is_trained():
    retraining = a_retraining(branch=16, epochs=1)

    list(retraining.run())

    assert retraining.best_network().architecture == an_architecture("conv 8 1, zoomed_conv 8 1, conv 16 2")


def test_a_branch_that_the_architecture_lacks_is_refused():
    with pytest.raises(ValueError, match=r"branch 32: this architecture has branches of rates \[8, 16\]"):
        a_retraining(branch=32)


def test_a_teacher_distils_its_own_pruned_architecture():
    wide = an_architecture("conv 8 3, conv 8 3", "conv 8 3, zoomed_conv 8 3, conv 16 3", stem_ratio=3)
    torch.manual_seed(0)
    teacher = SegmentationNetwork(wide, 3)
    config = a_retrain_config(role="teacher", pruning=Pruning(expansion_ratio=1, end_ratio=2), epochs=1)
    retraining = Retrain(config, wide, ColourBlocks(num_images=8), torch.device("cpu"), teacher)

    list(retraining.run())

    assert retraining.best_network().architecture == ARCHITECTURE


# ---- errors ----


def test_a_weight_that_is_not_a_number_stops_the_run_before_the_step():
    retraining = a_retraining()
    run = retraining.run()
    next(run)
    with torch.no_grad():
        retraining.network.stem[0][0].weight[0, 0, 0, 0] = torch.nan
    before = parameters(retraining.network)

    with pytest.raises(DivergedError, match="retrain epoch 1, step 2"):
        next(run)

    assert all(torch.equal(p.nan_to_num(), before[n].nan_to_num()) for n, p in retraining.network.named_parameters())
    assert retraining.step == 1


def test_too_few_images_are_refused_with_what_to_change():
    with pytest.raises(ValueError, match="batch_size 3 is more than the 2 images"):
        a_retraining(ColourBlocks(num_images=3), batch_size=3)


def test_nothing_outside_of_the_run_is_seeded():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    next(a_retraining().run())

    assert torch.equal(torch.rand(1), expected)
