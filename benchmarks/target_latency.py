"""Three latency targets, approached from above and from below, on a table measured here (`target_latency_ms`).

    python -m benchmarks.target_latency

The `quick` search. Before its first step each search is moved to a student that is slower or
faster than its target by --start; all searches of a seed continue one pretraining. Beside them, from the same starts,
run searches whose lambda is doubled or halved after each epoch, as the published code does. An error is that of the
student that is selected in the end. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch

from benchmarks.quick_search import QuickSearch, add_arguments, setting
from fasterseg_core.config import Role
from fasterseg_core.latency_control import TOLERANCE, LatencyControl
from fasterseg_core.reports import EpochReport
from fasterseg_core.search import Search

CONTROLS = ("target", "doubled or halved")
FIRST_LAMBDA = 1.0  # where latency and segmentation press alike on this preset


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search; latencies are the selected student's by epoch, shares are at the end."""

    control: str
    target_ms: float
    seed: int
    start_ms: float
    latency_ms: list[float]
    latency_weight: list[float]
    miou: float
    skip_share: float
    narrowest_share: float
    warned: bool

    @property
    def error(self) -> float:
        """Of the last student, as a share of the target."""
        return self.latency_ms[-1] / self.target_ms - 1


def main() -> None:
    """Prints a line for each search, a table, and a summary."""
    arguments = _arguments()
    torch.set_num_threads(1)
    quick = QuickSearch(arguments.data, arguments.table)
    started = time.process_time()
    runs = []
    for run in _runs(quick, arguments):
        runs.append(run)
        print(json.dumps(vars(run)), flush=True)
    print(_table(runs))
    held = [run for run in runs if run.control == CONTROLS[0]]
    fresh = quick.start(0)
    reachable_ms = _control(fresh, 0.0).reachable(fresh.models.relaxations[Role.STUDENT])
    summary = {
        "setting": setting() | {"dataset": quick.config.dataset, "cpu_seconds": round(time.process_time() - started)},
        "reachable_ms": [round(ms, 2) for ms in reachable_ms],
        "within_tolerance": f"{sum(abs(run.error) <= TOLERANCE for run in held)} of {len(held)}",
        "runs": [vars(run) for run in runs],
    }
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--targets", type=float, nargs="*", default=[7.0, 8.5, 10.0], help="ms")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--controls", nargs="*", choices=CONTROLS, default=list(CONTROLS))
    parser.add_argument(
        "--start", type=float, default=0.15, help="how far off searches start, as a share of the target"
    )
    return parser.parse_args()


def _control(search: Search, target_ms: float) -> LatencyControl:
    return LatencyControl(search.models.latency, search.models.granularity_weights, search.table, target_ms)


def _runs(quick: QuickSearch, arguments: argparse.Namespace) -> Iterator[Run]:
    for seed in range(arguments.seeds):
        for target_ms in arguments.targets:
            for factor in (1 + arguments.start, 1 - arguments.start):
                for control in arguments.controls:
                    yield _run(quick, control, target_ms, seed, factor * target_ms)


def _run(quick: QuickSearch, control: str, target_ms: float, seed: int, start_ms: float) -> Run:
    held = control == CONTROLS[0]
    changes: dict[str, float] = {"target_latency_ms": target_ms} if held else {"latency_weight": FIRST_LAMBDA}
    search = quick.start(seed, **changes)
    student = search.models.relaxations[Role.STUDENT]
    start = _control(search, start_ms)
    start.hold(student)
    started_ms = start.nearest_ms(student)
    epochs = list(_epochs(search, None if held else target_ms))
    last = epochs[-1]
    assert last.miou is not None
    assert last.skip_share is not None
    assert last.narrowest_share is not None
    return Run(
        control=control,
        target_ms=target_ms,
        seed=seed,
        start_ms=round(started_ms, 2),
        latency_ms=[round(report.latency_ms, 3) for report in epochs if report.latency_ms is not None],
        latency_weight=[round(report.latency_weight, 3) for report in epochs if report.latency_weight is not None],
        miou=round(last.miou, 4),
        skip_share=round(last.skip_share, 3),
        narrowest_share=round(last.narrowest_share, 3),
        warned=any(report.warning for report in epochs),
    )


def _epochs(search: Search, steered_to_ms: float | None) -> Iterator[EpochReport]:
    """The search's epochs; where it is steered, lambda is doubled after one that is too slow, else halved."""
    for report in search.run():
        if isinstance(report, EpochReport):
            yield report
            if steered_to_ms is not None and report.latency_ms is not None:
                search.latency_weight *= 2.0 if report.latency_ms > steered_to_ms else 0.5


def _table(runs: list[Run]) -> str:
    lines = [
        "| control | target (ms) | seed | start (ms) | student by epoch (ms) | error | mIoU (%) | skips | narrow |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.control} | {run.target_ms:g} | {run.seed} | {run.start_ms:.2f} "
        f"| {', '.join(f'{ms:.2f}' for ms in run.latency_ms)} | {run.error:+.1%} | {100 * run.miou:.1f} "
        f"| {run.skip_share:.0%} | {run.narrowest_share:.0%} |"
        for run in runs
    ]
    for control in dict.fromkeys(run.control for run in runs):
        errors = [abs(run.error) for run in runs if run.control == control]
        lines.append(f"\n{control}: mean error {mean(errors):.1%}, worst {max(errors):.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
