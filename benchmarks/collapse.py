"""Figure 4: naive latency optimisation against the regularised one (eq. 3), latency and mIoU over the epochs.

    python -m benchmarks.collapse --data FOLDER --picture docs/images/collapse.png

The `quick` search. Naive is w = (1, 1, 1), whose gradient is exactly that of the relaxed latency (a test says so);
regularised is w balanced on the table. Balanced weights sum to 1 and naive ones to 3, so one lambda is not one
pressure. Two comparisons follow: a sweep over lambda, to be read as mIoU at the latency reached, and both ways held at
one latency by `target_latency_ms`, which gives each exactly the pressure that it needs. All searches of a seed continue
one pretraining, on one table, and are kept in a file, so that a disturbed program goes on. The last line is one JSON
object.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from benchmarks.quick_search import QuickSearch, add_arguments, setting
from fasterseg_core.figures import search_comparison
from fasterseg_core.reports import EpochReport

WAYS: dict[str, tuple[float, float, float] | None] = {"naive": (1.0, 1.0, 1.0), "regularised": None}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search; pressure is its lambda or its target in ms, values are by epoch."""

    way: str
    pressure: str
    seed: int
    latency_ms: list[float]
    miou: list[float]
    skip_share: float
    narrowest_share: float
    warned: bool


def main() -> None:
    """Runs what is missing, prints a table and a summary, draws the picture."""
    arguments = _arguments()
    torch.set_num_threads(1)
    quick = QuickSearch(arguments.data, arguments.table)
    done = _read(arguments.runs)
    with arguments.runs.open("a", buffering=1) as file:
        for run in _runs(quick, arguments, [(run.seed, run.pressure, run.way) for run in done]):
            file.write(json.dumps(vars(run)) + "\n")
    runs = _read(arguments.runs)
    print(_table(runs))
    arguments.picture.write_bytes(_picture(runs))
    summary = {"setting": setting() | {"dataset": quick.config.dataset}, "runs": [vars(run) for run in runs]}
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--lambdas", type=float, nargs="*", default=[0.01, 1.0])
    parser.add_argument("--target", type=float, default=6.5, help="ms, for both ways; 0 for none")
    parser.add_argument("--runs", type=Path, default=Path("collapse.jsonl"), help="searches in it are not run again")
    parser.add_argument("--picture", type=Path, default=Path("collapse.png"))
    return parser.parse_args()


def _read(path: Path) -> list[Run]:
    runs = [Run(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    return sorted(runs, key=lambda run: (run.pressure, run.way, run.seed))


def _runs(quick: QuickSearch, arguments: argparse.Namespace, done: list[tuple[int, str, str]]) -> Iterator[Run]:
    pressures: dict[str, dict[str, float]] = {f"lambda {x:g}": {"latency_weight": x} for x in arguments.lambdas}
    if arguments.target:
        pressures[f"target {arguments.target:g} ms"] = {"target_latency_ms": arguments.target}
    for seed, (pressure, changes), (way, weights) in product(arguments.seeds, pressures.items(), WAYS.items()):
        if (seed, pressure, way) not in done:
            yield _run(quick, way, pressure, seed, granularity_weights=weights, **changes)


def _run(quick: QuickSearch, way: str, pressure: str, seed: int, **changes: object) -> Run:
    search = quick.start(seed, **changes)
    epochs = [report for report in search.run() if isinstance(report, EpochReport)]
    last = epochs[-1]
    assert last.skip_share is not None
    assert last.narrowest_share is not None
    return Run(
        way=way,
        pressure=pressure,
        seed=seed,
        latency_ms=[round(report.latency_ms, 3) for report in epochs if report.latency_ms is not None],
        miou=[round(report.miou, 4) for report in epochs if report.miou is not None],
        skip_share=round(last.skip_share, 3),
        narrowest_share=round(last.narrowest_share, 3),
        warned=any(report.warning for report in epochs),
    )


def _groups(runs: list[Run]) -> dict[tuple[str, str], list[Run]]:
    keys = dict.fromkeys((run.pressure, run.way) for run in runs)
    return {key: [run for run in runs if (run.pressure, run.way) == key] for key in keys}


def _table(runs: list[Run]) -> str:
    """Means over seeds: of the last two epochs, since one epoch's argmaxes are a draw."""
    lines = [
        "| pressure | way | latency, first -> last two epochs (ms) | mIoU (%) | each seed | skips | narrow | warned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (pressure, way), group in _groups(runs).items():
        last = [100 * mean(run.miou[-2:]) for run in group]
        lines.append(
            f"| {pressure} | {way} | {mean(run.latency_ms[0] for run in group):.2f} -> "
            f"{mean(mean(run.latency_ms[-2:]) for run in group):.2f} | {100 * mean(run.miou[0] for run in group):.1f} "
            f"-> {mean(last):.1f} | {', '.join(f'{value:.1f}' for value in last)} "
            f"| {mean(run.skip_share for run in group):.0%} | {mean(run.narrowest_share for run in group):.0%} "
            f"| {sum(run.warned for run in group)} of {len(group)} |"
        )
    return "\n".join(lines)


def _picture(runs: list[Run]) -> bytes:
    panels = {
        f"{way}, {pressure}": ([run.miou for run in group], [run.latency_ms for run in group])
        for (pressure, way), group in _groups(runs).items()
    }
    return search_comparison(panels, columns=len(WAYS))


if __name__ == "__main__":
    main()
