from itertools import islice

import pytest
import torch

from fasterseg_core.checkpoint import CheckpointKind, pack, unpack
from fasterseg_core.config import CollapsePolicy, OptimizerConfig, Role
from fasterseg_core.derive import target
from fasterseg_core.latency import balanced_weights, sensitivities
from fasterseg_core.latency_control import is_within
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, estimate
from fasterseg_core.reports import CollapsedError, DivergedError, EpochReport, StepReport
from fasterseg_core.search import Search
from fasterseg_core.selection import best, candidates
from tests.builders import ColourBlocks, a_latency_table, a_resolution, a_search_config, a_search_space

CPU = torch.device("cpu")
SPACE = a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=1)
TARGET_MS = 1.3  # students of this space take 1.0 to 2.9 ms on the computed table


def a_search(data=None, table=None, **changes):
    config = a_search_config(**{"space": SPACE, **changes})
    return Search(config, table or a_latency_table(config.space), data or ColourBlocks(num_images=8), CPU)


def saved(search):
    """A search's state after a trip through a file that may hold no code."""
    return unpack(pack(search.state_dict(), CheckpointKind.SEARCH), CheckpointKind.SEARCH)


def values(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def parameters(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def optimizer_state(optimizer):
    """Its tensors by parameter and name."""
    states = optimizer.state_dict()["state"].items()
    return {(i, name): value.clone() for i, state in states for name, value in state.items() if torch.is_tensor(value)}


def changed(module, before):
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def without_decay(learning_rate=0.01):
    return OptimizerConfig(learning_rate=learning_rate, decay=0.99, weight_decay=0.0)


# ---- a run ----


@pytest.fixture(scope="module")
def finished():
    """A whole search: its reports, and the state after it."""
    search = a_search()
    return list(search.run()), search


def test_a_search_pretrains_then_searches_and_reports_every_step_and_epoch(finished):
    reports, _ = finished

    assert [(type(r), r.phase, r.epoch) for r in reports] == [
        (StepReport, "pretrain", 1),
        (StepReport, "pretrain", 1),
        (EpochReport, "pretrain", 1),
        (StepReport, "search", 1),
        (StepReport, "search", 1),
        (EpochReport, "search", 1),
    ]
    steps = [r for r in reports if isinstance(r, StepReport)]
    assert [(r.step, r.steps, r.epochs, r.fraction) for r in steps] == [
        (1, 2, 1, 0.25),
        (2, 2, 1, 0.5),
        (1, 2, 1, 0.75),
        (2, 2, 1, 1.0),
    ]


def test_an_epoch_reports_its_mean_loss_and_the_derived_student(finished):
    (*_, first, second, epoch), search = finished

    student = search.select(Role.STUDENT)
    assert epoch.loss == pytest.approx((first.loss + second.loss) / 2)
    assert epoch.relaxed_latency_ms == second.latency_ms
    assert (epoch.latency_ms, epoch.miou) == (student.latency_ms, student.miou)
    assert search.history[-1] == epoch


def test_an_epoch_reports_the_supernets_heads_scalars_and_lambda(finished):
    (*_, epoch), search = finished

    student = search.models.relaxations[Role.STUDENT]
    assert set(epoch.head_mious) == {"8", "16", "32", "8+16", "8+32", "16+32"}
    assert set(epoch.relaxation) == {name for name, _ in student.named_parameters()}
    assert epoch.relaxation["alpha.8"] == torch.softmax(student.alpha["8"], dim=1).tolist()
    assert epoch.latency_weight == 0.01
    assert (epoch.warning, epoch.latency_slope, epoch.miou_slope) == (None, None, None)
    assert epoch.alpha_entropy > 0.9
    assert 0 < epoch.skip_share < epoch.narrowest_share < 1


def test_pretraining_updates_every_weight_and_no_architecture():
    search = a_search(pretrain_optimizer=without_decay(), optimizer=without_decay())
    weights = parameters(search.models.supernet)
    scalars = {role: parameters(relaxation) for role, relaxation in search.models.relaxations.items()}

    next(search.run())

    assert changed(search.models.supernet, weights) == set(weights)
    assert all(changed(relaxation, scalars[role]) == set() for role, relaxation in search.models.relaxations.items())


def test_a_search_step_updates_every_searched_scalar_and_the_weights():
    search = a_search(pretrain_epochs=0)
    weights = parameters(search.models.supernet)
    scalars = {role: parameters(relaxation) for role, relaxation in search.models.relaxations.items()}

    next(search.run())

    student, teacher = search.models.relaxations[Role.STUDENT], search.models.relaxations[Role.TEACHER]
    assert changed(student, scalars[Role.STUDENT]) == {n for n, p in student.named_parameters() if p.numel()}
    assert changed(teacher, scalars[Role.TEACHER]) == {
        n for n, p in teacher.named_parameters() if p.numel() and "gamma" not in n
    }
    assert changed(search.models.supernet, weights)


def test_pretraining_learns():
    search = a_search(pretrain_optimizer=without_decay(0.2), steps_per_epoch=8)

    first, *losses = [report.loss for report in islice(search.run(), 12)]

    assert sum(losses[-4:]) / 4 < 0.95 * first


def test_each_phase_has_its_own_optimizer_settings():
    phases = {"pretrain_optimizer": OptimizerConfig(learning_rate=0.02, decay=0.5, momentum=0.8, weight_decay=0.1)}
    search = a_search(**phases, optimizer=without_decay(0.01), pretrain_epochs=2, steps_per_epoch=1)

    seen = [
        (report.phase, group["lr"], group["momentum"], group["weight_decay"])
        for report in islice(search.run(), 5)
        if isinstance(report, StepReport)
        for group in search.models.weight_optimizer.param_groups
    ]

    assert seen == [
        ("pretrain", 0.02, 0.8, 0.1),
        ("pretrain", 0.01, 0.8, 0.1),
        ("search", 0.01, 0.9, 0.0),
    ]


def test_each_phase_has_its_own_gradient_clip():
    tight = OptimizerConfig(learning_rate=1.0, decay=0.99, momentum=0.0, weight_decay=0.0, gradient_clip=1e-3)
    search = a_search(pretrain_optimizer=tight)
    before = parameters(search.models.supernet)

    next(search.run())

    moved = torch.stack([(p.detach() - before[n]).square().sum() for n, p in search.models.supernet.named_parameters()])
    assert float(moved.sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


# ---- the four updates ----


def test_an_architecture_update_leaves_the_weights_alone():
    search = a_search(pretrain_epochs=0, optimizer=without_decay(1e-30))
    before = parameters(search.models.supernet)

    next(search.run())

    assert all((p - before[name]).abs().max() < 1e-20 for name, p in search.models.supernet.named_parameters())
    assert all(p.requires_grad for p in search.models.supernet.parameters())


def test_an_architecture_update_computes_no_gradient_of_the_weights():
    search = a_search(pretrain_epochs=0)
    conv, learns = search.models.supernet.cell(8, 0).keep.candidates[1].convs[0], []
    conv.register_forward_pre_hook(lambda module, _: learns.append(module.conv.weight.requires_grad))

    next(search.run())

    assert learns == [True] * (1 + 2) + [False] * 2  # the teacher's pass and the student's two; the two on trainB


def test_a_weight_update_computes_no_gradient_of_the_architecture():
    search = a_search(pretrain_epochs=0)
    backwards = []
    for logits in search.models.relaxations[Role.STUDENT].parameters():
        logits.register_post_accumulate_grad_hook(backwards.append)

    next(search.run())

    searched = [p for p in search.models.relaxations[Role.STUDENT].parameters() if p.numel()]
    assert len(backwards) == len(searched)


def test_architecture_updates_move_each_roles_scalars_for_its_own_loss():
    """Latency outweighs everything in the student's objective and has no part in the teacher's."""
    light = a_search(pretrain_epochs=0, latency_weight=0.0, optimizer=without_decay(1e-30))
    heavy = a_search(pretrain_epochs=0, latency_weight=1e6, optimizer=without_decay(1e-30))

    next(light.run())
    next(heavy.run())

    assert changed(light.models.relaxations[Role.TEACHER], parameters(heavy.models.relaxations[Role.TEACHER])) == set()
    assert changed(light.models.relaxations[Role.STUDENT], parameters(heavy.models.relaxations[Role.STUDENT]))


def test_a_heavy_latency_makes_the_student_faster():
    search = a_search(pretrain_epochs=0, steps_per_epoch=3, latency_weight=1e3, architecture_learning_rate=0.3)

    latencies = [report.latency_ms for report in islice(search.run(), 3)]

    assert latencies[-1] < 0.9 * latencies[0]


def test_nothing_outside_of_the_search_is_seeded():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    a_search()

    assert torch.equal(torch.rand(1), expected)


def test_granularity_weights_are_balanced_on_the_table_unless_given():
    automatic, given = a_search(), a_search(granularity_weights=(0.001, 0.997, 0.002))

    gaps = sensitivities(automatic.models.relaxations[Role.STUDENT], automatic.models.latency)

    assert automatic.models.granularity_weights == balanced_weights(gaps)
    assert given.models.granularity_weights == (0.001, 0.997, 0.002)


# ---- checkpoints ----


@pytest.mark.parametrize("reports_seen", [1, 2, 3, 4, 5])
def test_a_search_continues_from_any_report_as_if_it_had_not_stopped(finished, reports_seen):
    reports, whole = finished
    stopped = a_search()
    assert list(islice(stopped.run(), reports_seen)) == reports[:reports_seen]

    again = a_search()
    again.load_state_dict(saved(stopped))

    assert list(again.run()) == reports[reports_seen:]
    assert again.history == whole.history
    assert_equal(values(again.models.supernet), values(whole.models.supernet))
    for role in Role:
        assert_equal(values(again.models.relaxations[role]), values(whole.models.relaxations[role]))
    assert torch.equal(again.models.generator.get_state(), whole.models.generator.get_state())


@pytest.fixture(scope="module")
def steered():
    """A whole search with a latency target."""
    search = a_search(target_latency_ms=TARGET_MS, epochs=2)
    return list(search.run()), search


@pytest.mark.parametrize("reports_seen", [4, 6, 7])
def test_a_search_with_a_target_continues_from_any_report(steered, reports_seen):
    reports, whole = steered
    stopped = a_search(target_latency_ms=TARGET_MS, epochs=2)
    assert list(islice(stopped.run(), reports_seen)) == reports[:reports_seen]

    again = a_search(target_latency_ms=TARGET_MS, epochs=2)
    again.load_state_dict(saved(stopped))

    assert list(again.run()) == reports[reports_seen:]
    assert_equal(
        values(again.models.relaxations[Role.STUDENT]),
        values(whole.models.relaxations[Role.STUDENT]),
    )


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    assert [name for name, value in state.items() if not torch.equal(value, expected[name])] == []


def test_a_search_follows_from_its_seed():
    first, second, third = (a_search(seed=seed) for seed in (0, 0, 1))

    reports = [next(search.run()) for search in (first, second, third)]

    assert reports[0] == reports[1]
    assert reports[0].loss != reports[2].loss
    assert first.split != third.split


def test_a_checkpoint_of_other_images_is_refused():
    state = saved(a_search())

    with pytest.raises(ValueError, match="another split of the training images"):
        a_search(ColourBlocks(num_images=9)).load_state_dict(state)


# ---- errors ----


@pytest.mark.parametrize(
    ("pretrain_epochs", "message"), [(1, "pretrain epoch 1, step 2"), (0, "search epoch 1, step 2")]
)
def test_a_weight_that_is_not_a_number_stops_the_search_before_the_step(pretrain_epochs, message):
    search = a_search(pretrain_epochs=pretrain_epochs)
    run = search.run()
    next(run)
    with torch.no_grad():
        search.models.supernet.cell(8, 0).keep.candidates[1].convs[0].conv.weight[0, 0, 0, 0] = torch.nan
    weights = parameters(search.models.supernet)
    scalars = parameters(search.models.relaxations[Role.STUDENT])

    with pytest.raises(DivergedError, match=f"{message}: the loss or gradient of the weights is not finite"):
        next(run)

    assert all(
        torch.equal(p.nan_to_num(), weights[n].nan_to_num()) for n, p in search.models.supernet.named_parameters()
    )
    assert changed(search.models.relaxations[Role.STUDENT], scalars) == set()
    assert search.step == 1


def test_an_architecture_that_is_not_a_number_stops_the_search():
    search = a_search(pretrain_epochs=0)
    with torch.no_grad():
        search.models.relaxations[Role.STUDENT].alpha["8"][0, 0] = torch.nan

    with pytest.raises(DivergedError, match="search epoch 1, step 1"):
        next(search.run())


class SpoiledSearch(Search):
    """A search in which the images of one part of the split are not numbers."""

    spoiled: tuple[int, ...] = ()

    def _batches(self, indices, seed):
        for images, labels in super()._batches(indices, seed):
            yield (images * torch.nan if indices == self.spoiled else images), labels


@pytest.mark.parametrize(
    ("pretrain_epochs", "part", "message"),
    [
        (1, "train_a", "pretrain epoch 1, step 1: the loss or gradient of the weights"),
        (0, "train_a", "search epoch 1, step 1: the loss or gradient of the weights"),
        (0, "train_b", "search epoch 1, step 1: the loss or gradient of the teacher.s architecture"),
    ],
)
def test_an_image_that_is_not_a_number_stops_the_search_before_the_update(pretrain_epochs, part, message):
    config = a_search_config(space=SPACE, pretrain_epochs=pretrain_epochs)
    search = SpoiledSearch(config, a_latency_table(SPACE), ColourBlocks(num_images=8), CPU)
    search.spoiled = getattr(search.split, part)
    models = search.models
    modules = {role: models.relaxations[role] for role in Role}
    optimizers = [*models.architecture_optimizers.values()]
    if part == "train_a":
        modules["supernet"] = models.supernet
        optimizers.append(models.weight_optimizer)
    before = {name: parameters(module) for name, module in modules.items()}
    momenta = [optimizer_state(optimizer) for optimizer in optimizers]

    with pytest.raises(DivergedError, match=message):
        next(search.run())

    assert {name: changed(module, before[name]) for name, module in modules.items()} == {n: set() for n in modules}
    for optimizer, expected in zip(optimizers, momenta, strict=True):
        assert_equal(optimizer_state(optimizer), expected)
    assert (search.epoch, search.step, search.history) == (0, 0, [])


def test_a_resolution_that_is_not_the_tables_is_refused():
    with pytest.raises(ValueError, match=r"resolution Resolution\(height=64, width=128\) is not the latency table's"):
        a_search(resolution=a_resolution(64, 128))


def test_other_classes_than_the_tables_are_refused():
    with pytest.raises(ValueError, match="3 classes, but the latency table has 5"):
        a_search(table=a_latency_table(SPACE, num_classes=5))


def test_a_table_that_lacks_an_operator_is_refused():
    table = a_latency_table(SPACE)
    rows = {spec: row for spec, row in table.rows.items() if spec.key != "conv_x2 8->16 8x12 /1"}

    with pytest.raises(MissingLatencyError, match="no entry for 'conv_x2 8->16 8x12 /1'"):
        a_search(table=LatencyTable(table.fingerprint, rows))


def test_a_half_smaller_than_a_batch_is_refused_before_pretraining():
    with pytest.raises(ValueError, match="batch_size 2 is more than the 1 images of trainB"):
        a_search(ColourBlocks(num_images=4), batch_size=2)


# ---- selection ----


def test_the_selected_pair_is_the_best_by_equation_5(finished):
    _, search = finished

    selection = search.select(Role.STUDENT)

    def goal(candidate):
        return target(candidate.miou, candidate.latency_ms, -0.07)

    assert selection == max(candidates(search.models, Role.STUDENT, search.table, search.images), key=goal)
    assert selection.latency_ms == estimate(selection.derivation.architecture, search.table).milliseconds
    assert 0 <= selection.miou <= 1


def test_selecting_changes_nothing(finished):
    _, search = finished
    before = saved(search)

    first, second = search.select(Role.TEACHER), search.select(Role.TEACHER)

    assert first == second
    after = saved(search)
    assert_equal(after["models"]["supernet"], before["models"]["supernet"])
    assert torch.equal(after["models"]["generator"], before["models"]["generator"])


def test_the_holdout_is_a_share_of_the_images_and_the_rest_is_halved():
    split = a_search(ColourBlocks(num_images=16), holdout_share=0.25).split

    assert [len(part) for part in (split.holdout, split.train_a, split.train_b)] == [4, 6, 6]


# ---- a latency target ----


def test_a_search_with_a_target_lands_on_it_from_above_and_below(steered):
    reports, search = steered

    assert [is_within(r.latency_ms, TARGET_MS) for r in reports if isinstance(r, EpochReport) and r.miou] == [True] * 2
    assert is_within(search.select(Role.STUDENT).latency_ms, TARGET_MS)


def test_a_target_is_the_students_alone(steered):
    _, search = steered

    selection = search.select(Role.TEACHER)

    assert selection == best(candidates(search.models, Role.TEACHER, search.table, search.images), -0.07, None)
    assert not is_within(selection.latency_ms, TARGET_MS)


@pytest.mark.parametrize("target_ms", [1.05, 2.5])
def test_slow_and_fast_targets_are_both_held(target_ms):
    search = a_search(target_latency_ms=target_ms, pretrain_epochs=0, architecture_learning_rate=0.05)

    epoch = next(report for report in search.run() if isinstance(report, EpochReport))

    assert is_within(epoch.latency_ms, target_ms)
    assert search.latency_weight == 0
    assert epoch.latency_weight != 0


def test_a_target_out_of_reach_is_refused_before_pretraining():
    with pytest.raises(ValueError, match="target_latency_ms 50 is out of reach: .* between .* and .* ms"):
        a_search(target_latency_ms=50.0)


# ---- collapse ----

# On this fast table .05 presses about as a lambda of .01 does where networks take 8 ms.
HEALTHY = {"pretrain_epochs": 0, "epochs": 2, "steps_per_epoch": 6, "architecture_learning_rate": 0.1}
HEALTHY_LAMBDA = 0.05
COLLAPSING = {"pretrain_epochs": 0, "epochs": 3, "architecture_learning_rate": 1.0, "latency_weight": 100.0}


def search_epochs(search):
    return [report for report in search.run() if isinstance(report, EpochReport) and report.phase == "search"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_healthy_search_is_not_warned_of(seed):
    reports = search_epochs(a_search(**HEALTHY, seed=seed, latency_weight=HEALTHY_LAMBDA))

    assert [report.warning for report in reports] == [None, None]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hundred_times_lambda_collapses(seed):
    last = search_epochs(a_search(**HEALTHY, seed=seed, latency_weight=100 * HEALTHY_LAMBDA))[-1]

    assert "collapsing to a trivial network: narrowest widths at" in last.warning


def test_by_default_a_collapse_is_only_warned_of():
    reports = search_epochs(a_search(**COLLAPSING))

    assert reports[-1].warning is not None
    assert [report.latency_weight for report in reports] == [100.0] * 3


def test_lambda_is_halved_after_each_epoch_of_a_collapse():
    search = a_search(**COLLAPSING, collapse_policy=CollapsePolicy.HALVE_LAMBDA)

    reports = search_epochs(search)

    warned = [report.warning is not None for report in reports]
    assert warned == [True] * 3
    assert [report.latency_weight for report in reports] == [100.0, 50.0, 25.0]
    assert reports[0].warning.endswith("Lambda is 50 from the next epoch on")
    assert search.latency_weight == 12.5


def test_a_halved_lambda_survives_a_checkpoint():
    search = a_search(**COLLAPSING, collapse_policy=CollapsePolicy.HALVE_LAMBDA)
    list(islice(search.run(), 3))  # two steps and an epoch

    again = a_search(**COLLAPSING, collapse_policy=CollapsePolicy.HALVE_LAMBDA)
    again.load_state_dict(saved(search))

    assert again.latency_weight == 50
    assert list(again.run()) == list(search.run())


def test_a_collapse_can_stop_the_search_once_its_epoch_was_reported():
    search = a_search(**COLLAPSING, collapse_policy=CollapsePolicy.STOP)
    run = search.run()
    reports = list(islice(run, 3))
    state = saved(search)

    with pytest.raises(CollapsedError, match="search epoch 1: the student is collapsing .* Lower latency_weight"):
        next(run)

    assert isinstance(reports[-1], EpochReport)
    again = a_search(**COLLAPSING, collapse_policy=CollapsePolicy.STOP)
    again.load_state_dict(state)
    with pytest.raises(CollapsedError):
        next(again.run())
