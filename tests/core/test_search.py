import io
from itertools import islice

import pytest
import torch

from fasterseg_core.config import OptimizerConfig, Role
from fasterseg_core.derive import target
from fasterseg_core.latency import balanced_weights, sensitivities
from fasterseg_core.latency_table import LatencyTable, MissingLatencyError, estimate
from fasterseg_core.reports import DivergedError, EpochReport, StepReport
from fasterseg_core.search import Search
from fasterseg_core.search_space import BRANCH_PAIRS
from tests.builders import ColourBlocks, a_latency_table, a_resolution, a_search_config, a_search_space

CPU = torch.device("cpu")
SPACE = a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=1)


def a_search(data=None, table=None, **changes):
    config = a_search_config(**{"space": SPACE, **changes})
    return Search(config, table or a_latency_table(config.space), data or ColourBlocks(num_images=8), CPU)


def saved(search):
    """A search's state after a trip through a file that may hold no code."""
    buffer = io.BytesIO()
    torch.save(search.state_dict(), buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def values(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def parameters(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


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


def test_pretraining_updates_every_weight_and_no_architecture():
    search = a_search(pretrain_optimizer=without_decay(), optimizer=without_decay())
    weights = parameters(search.supernet)
    scalars = {role: parameters(relaxation) for role, relaxation in search.relaxations.items()}

    next(search.run())

    assert changed(search.supernet, weights) == set(weights)
    assert all(changed(relaxation, scalars[role]) == set() for role, relaxation in search.relaxations.items())


def test_a_search_step_updates_every_searched_scalar_and_the_weights():
    search = a_search(pretrain_epochs=0)
    weights = parameters(search.supernet)
    scalars = {role: parameters(relaxation) for role, relaxation in search.relaxations.items()}

    next(search.run())

    student, teacher = search.relaxations[Role.STUDENT], search.relaxations[Role.TEACHER]
    assert changed(student, scalars[Role.STUDENT]) == {n for n, p in student.named_parameters() if p.numel()}
    assert changed(teacher, scalars[Role.TEACHER]) == {
        n for n, p in teacher.named_parameters() if p.numel() and "gamma" not in n
    }
    assert changed(search.supernet, weights)


def test_pretraining_learns():
    search = a_search(pretrain_optimizer=without_decay(0.2), steps_per_epoch=8)

    losses = [report.loss for report in islice(search.run(), 8)]

    assert losses[-1] < 0.95 * losses[0]


def test_each_phase_has_its_own_optimizer_settings():
    phases = {"pretrain_optimizer": OptimizerConfig(learning_rate=0.02, decay=0.5, momentum=0.8, weight_decay=0.1)}
    search = a_search(**phases, optimizer=without_decay(0.01), pretrain_epochs=2, steps_per_epoch=1)

    seen = [
        (report.phase, group["lr"], group["momentum"], group["weight_decay"])
        for report in islice(search.run(), 5)
        if isinstance(report, StepReport)
        for group in search.weight_optimizer.param_groups
    ]

    assert seen == [
        ("pretrain", 0.02, 0.8, 0.1),
        ("pretrain", 0.01, 0.8, 0.1),
        ("search", 0.01, 0.9, 0.0),
    ]


def test_each_phase_has_its_own_gradient_clip():
    tight = OptimizerConfig(learning_rate=1.0, decay=0.99, momentum=0.0, weight_decay=0.0, gradient_clip=1e-3)
    search = a_search(pretrain_optimizer=tight)
    before = parameters(search.supernet)

    next(search.run())

    moved = torch.stack([(p.detach() - before[n]).square().sum() for n, p in search.supernet.named_parameters()])
    assert float(moved.sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


# ---- the four updates ----


def test_an_architecture_update_leaves_the_weights_alone():
    search = a_search(pretrain_epochs=0, optimizer=without_decay(1e-30))
    before = parameters(search.supernet)

    next(search.run())

    assert all((p - before[name]).abs().max() < 1e-20 for name, p in search.supernet.named_parameters())
    assert all(p.requires_grad for p in search.supernet.parameters())


def test_an_architecture_update_computes_no_gradient_of_the_weights():
    search = a_search(pretrain_epochs=0)
    weight, backwards = search.supernet.cell(8, 0).keep.candidates[1].convs[0].conv.weight, []
    weight.register_post_accumulate_grad_hook(backwards.append)

    next(search.run())

    assert len(backwards) == 1 + 3  # the teacher's pass and the student's three, none of the two on trainB


def test_a_weight_update_computes_no_gradient_of_the_architecture():
    search = a_search(pretrain_epochs=0)
    backwards = []
    for logits in search.relaxations[Role.STUDENT].parameters():
        logits.register_post_accumulate_grad_hook(backwards.append)

    next(search.run())

    searched = [p for p in search.relaxations[Role.STUDENT].parameters() if p.numel()]
    assert len(backwards) == len(searched)


def test_architecture_updates_move_each_roles_scalars_for_its_own_loss():
    """Latency outweighs everything in the student's objective and has no part in the teacher's."""
    light = a_search(pretrain_epochs=0, latency_weight=0.0, optimizer=without_decay(1e-30))
    heavy = a_search(pretrain_epochs=0, latency_weight=1e6, optimizer=without_decay(1e-30))

    next(light.run())
    next(heavy.run())

    assert changed(light.relaxations[Role.TEACHER], parameters(heavy.relaxations[Role.TEACHER])) == set()
    assert changed(light.relaxations[Role.STUDENT], parameters(heavy.relaxations[Role.STUDENT]))


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

    gaps = sensitivities(automatic.relaxations[Role.STUDENT], automatic.latency)

    assert automatic.granularity_weights == balanced_weights(gaps)
    assert given.granularity_weights == (0.001, 0.997, 0.002)


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
    assert_equal(values(again.supernet), values(whole.supernet))
    for role in Role:
        assert_equal(values(again.relaxations[role]), values(whole.relaxations[role]))
    assert torch.equal(again.generator.get_state(), whole.generator.get_state())


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
        search.supernet.cell(8, 0).keep.candidates[1].convs[0].conv.weight[0, 0, 0, 0] = torch.nan
    weights = parameters(search.supernet)
    scalars = parameters(search.relaxations[Role.STUDENT])

    with pytest.raises(DivergedError, match=f"{message}: the loss or gradient of the weights is not finite"):
        next(run)

    assert all(torch.equal(p.nan_to_num(), weights[n].nan_to_num()) for n, p in search.supernet.named_parameters())
    assert changed(search.relaxations[Role.STUDENT], scalars) == set()
    assert search.step == 1


def test_an_architecture_that_is_not_a_number_stops_the_search():
    search = a_search(pretrain_epochs=0)
    with torch.no_grad():
        search.relaxations[Role.STUDENT].alpha["8"][0, 0] = torch.nan

    with pytest.raises(DivergedError, match="search epoch 1, step 1"):
        next(search.run())


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

    def goal(pair):
        candidate = search._evaluated(Role.STUDENT, pair)
        return target(candidate.miou, candidate.latency_ms, 2.0, -0.07)

    assert selection.derivation.architecture.rates == max(BRANCH_PAIRS, key=goal)
    assert selection.latency_ms == estimate(selection.derivation.architecture, search.table).milliseconds
    assert 0 <= selection.miou <= 1


def test_selecting_changes_nothing(finished):
    _, search = finished
    before = saved(search)

    first, second = search.select(Role.TEACHER), search.select(Role.TEACHER)

    assert first == second
    after = saved(search)
    assert_equal(after["supernet"], before["supernet"])
    assert torch.equal(after["generator"], before["generator"])


def test_the_holdout_is_a_share_of_the_images_and_the_rest_is_halved():
    split = a_search(ColourBlocks(num_images=16), holdout_share=0.25).split

    assert [len(part) for part in (split.holdout, split.train_a, split.train_b)] == [4, 6, 6]
