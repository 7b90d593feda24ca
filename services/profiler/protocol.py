"""How workloads are measured: in interleaved passes, as the lower quartile of all samples, watched by a canary.

Other work can only add to a time, so the lower quartile is nearer to what an undisturbed machine takes than the median.

On a machine that others use, episodes of a second or less slow everything by half. A canary is therefore timed between
passes, and a pass beside which it was not near its best is repeated. Workloads are measured in batches, so that few
are in memory at once; one that fails or scatters is tried again, and in the end quarantined with the reason.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import numpy as np

from fasterseg_core.latency_table import LatencyRow, RowState
from services.profiler.runners import MeasurementError, Runner, Workload, verify


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How often and how strictly to measure; `max_drift` is wide, for machines that others use as well.

    Raises:
        ValueError: a count is not positive.
    """

    passes: int = 5  # over a batch, interleaved
    samples: int = 5  # of each workload in each pass
    batch_size: int = 20
    attempts: int = 3  # at a workload that fails or scatters
    quiet_drift: float = 0.08  # of the canary from its best; a slower pass is repeated, each up to twice
    max_drift: float = 1.0  # of the canary in the best passes that could be had; beyond it they are not used
    max_spread: float = 0.5  # distance of the quartiles as a share of the lower one
    min_spread_ms: float = 0.02  # a distance below this is the clock's, not the workload's

    def __post_init__(self) -> None:
        if min(self.passes, self.samples, self.batch_size, self.attempts) < 1:
            raise ValueError("passes, samples, batch_size and attempts must be positive")

    def describe(self, clock: str) -> str:
        """The protocol as a fingerprint records it."""
        return f"{clock}, lower quartile of {self.passes} passes of {self.samples} samples"


@dataclass(frozen=True, kw_only=True)
class MeasurementProgress:
    """How many measurements are made, what the last one was of, and the canary's largest drift in passes used.

    The report that ends a batch has its rows.
    """

    done: int
    total: int
    key: str
    seconds_left: float
    max_drift: float
    finished: Mapping[str, LatencyRow] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pass:
    """The milliseconds of each workload in one pass, why others failed, and the canary's drift around it."""

    samples: dict[str, list[float]]
    failures: dict[str, str]
    drift: float


class _Canary:
    """A workload whose time tells how fast the machine is at the moment, as a drift from the fastest it has been."""

    def __init__(self, workload: Workload, runner: Runner, protocol: Protocol) -> None:
        verify(runner, workload)
        self._workload, self._runner, self._samples = workload, runner, protocol.samples
        self._best_ms = math.inf
        for _ in range(protocol.passes):
            self.drift()

    def drift(self) -> float:
        """Times it now; 0.5 where it took half as long again as at its best."""
        now_ms = median(self._runner.benchmark(self._workload, self._samples))
        self._best_ms = min(self._best_ms, now_ms)
        return now_ms / self._best_ms - 1


class _Tally:
    """How far the measurements are; those of rows that were there before count as done, but not as time taken."""

    def __init__(self, num_known: int, num_rows: int, passes: int) -> None:
        self._started = time.monotonic()
        self._first = self._done = num_known * passes
        self._total = num_rows * passes
        self._end = self._done  # of the batch
        self.max_drift = 0.0

    def begin(self, num_measurements: int) -> None:
        """Expects a batch of so many measurements."""
        self._end = self._done + num_measurements

    def count(self, key: str) -> MeasurementProgress:
        """One measurement more; repetitions are no progress."""
        self._done = min(self._done + 1, self._end)
        return self._report(key, {})

    def finish(self, rows: Mapping[str, LatencyRow]) -> MeasurementProgress:
        """The end of a batch."""
        self._done = self._end
        return self._report(list(rows)[-1], rows)

    def _report(self, key: str, finished: Mapping[str, LatencyRow]) -> MeasurementProgress:
        seconds_each = (time.monotonic() - self._started) / (self._done - self._first)
        return MeasurementProgress(
            done=self._done,
            total=self._total,
            key=key,
            seconds_left=seconds_each * (self._total - self._done),
            max_drift=self.max_drift,
            finished=finished,
        )


def measure(
    workloads: Mapping[str, Callable[[], Workload]],
    canary: Workload,
    runner: Runner,
    protocol: Protocol,
    known: Mapping[str, LatencyRow] | None = None,
) -> Generator[MeasurementProgress, None, dict[str, LatencyRow]]:
    """Yields after every measurement and every batch, and returns the row of every key.

    Rows that are known are not measured. Each workload is built once, with its batch, and dropped with it.

    Raises:
        MeasurementError: the canary itself cannot be measured.
    """
    rows = {key: row for key, row in (known or {}).items() if key in workloads}
    remaining = iter([(key, build) for key, build in workloads.items() if key not in rows])
    tally = _Tally(len(rows), len(workloads), protocol.passes)
    watcher: _Canary | None = None  # a table that is complete needs none
    while batch := {key: build() for key, build in islice(remaining, protocol.batch_size)}:
        watcher = watcher or _Canary(canary, runner, protocol)
        finished = yield from _measure_batch(batch, watcher, runner, protocol, tally)
        rows |= finished
        yield tally.finish(finished)
    return rows


def _measure_batch(
    batch: Mapping[str, Workload], watcher: _Canary, runner: Runner, protocol: Protocol, tally: _Tally
) -> Generator[MeasurementProgress, None, dict[str, LatencyRow]]:
    """Returns the rows of a batch, tried again where they are quarantined."""
    rows: dict[str, LatencyRow] = {}
    tally.begin(len(batch) * protocol.passes)
    for _ in range(protocol.attempts):
        taken: list[_Pass] = []
        for key in _passes(batch, taken, watcher, runner, protocol):
            yield tally.count(key)
        best = sorted(taken, key=lambda one: one.drift)[: protocol.passes]
        tally.max_drift = max(tally.max_drift, best[-1].drift)
        rows |= {key: _row(key, best, protocol) for key in batch}
        batch = {key: workload for key, workload in batch.items() if rows[key].state is RowState.QUARANTINED}
        if not batch:
            break
    return rows


def _passes(
    batch: Mapping[str, Workload], taken: list[_Pass], watcher: _Canary, runner: Runner, protocol: Protocol
) -> Generator[str, None, None]:
    """Appends passes over a batch to `taken` until enough were quiet; yields the key of each measurement."""
    before = watcher.drift()
    while len(taken) < 2 * protocol.passes and _count_quiet(taken, protocol) < protocol.passes:
        samples, failures = {}, {}
        for key, workload in batch.items():
            try:
                if not taken:
                    verify(runner, workload)
                samples[key] = runner.benchmark(workload, protocol.samples)
            except MeasurementError as error:
                failures[key] = str(error)
            yield key
        after = watcher.drift()
        taken.append(_Pass(samples, failures, max(before, after)))
        before = after


def _count_quiet(taken: list[_Pass], protocol: Protocol) -> int:
    return sum(one.drift <= protocol.quiet_drift for one in taken)


def _row(key: str, passes: list[_Pass], protocol: Protocol) -> LatencyRow:
    failures = [one.failures[key] for one in passes if key in one.failures]
    if failures:
        nothing = {"milliseconds": 0.0, "lower_quartile": 0.0, "upper_quartile": 0.0}
        return LatencyRow(**nothing, samples=0, state=RowState.QUARANTINED, reason=failures[0])
    samples = [sample for one in passes for sample in one.samples[key]]
    lower, upper = (float(value) for value in np.percentile(samples, (25, 75)))
    reason = ""
    if passes[-1].drift > protocol.max_drift:
        reason = f"the canary took {passes[-1].drift:.0%} longer than at its best"
    elif upper - lower > max(protocol.max_spread * lower, protocol.min_spread_ms):
        reason = f"unstable: half of the samples lie between {lower:.3f} and {upper:.3f} ms"
    return LatencyRow(
        milliseconds=lower,
        lower_quartile=lower,
        upper_quartile=upper,
        samples=len(samples),
        state=RowState.QUARANTINED if reason else RowState.MEASURED,
        reason=reason,
    )
