"""How workloads are measured: in interleaved passes, as the lower quartile of all samples, watched by a canary.

Other work can only add to a time, so the lower quartile is nearer to what an undisturbed machine takes than the median.

On a machine that others use, episodes of a second or a minute slow everything by a fifth or by half. A canary is
therefore timed every second and between passes. What was measured while it was not near its best does not count, and a
workload of which too little counts is measured again. Workloads are measured in batches, so that few are in memory at
once; one that fails or scatters is tried again, and in the end quarantined with the reason.
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
    canary_seconds: float = 1.0
    quiet_drift: float = 0.08  # of the canary from its best; what is measured beside a slower one does not count
    max_drift: float = 1.0  # of the canary beside the best that could be had, where too little is quiet
    max_spread: float = 0.5  # distance of the quartiles as a share of the lower one
    min_spread_ms: float = 0.02  # a distance below this is the clock's, not the workload's

    def __post_init__(self) -> None:
        if min(self.passes, self.samples, self.batch_size, self.attempts) < 1:
            raise ValueError("passes, samples, batch_size and attempts must be positive")

    @property
    def quiet_passes(self) -> int:
        """How many of a workload's passes must be quiet: most; up to twice as many passes are made for it."""
        return self.passes // 2 + 1

    def describe(self, clock: str) -> str:
        """The protocol as a fingerprint records it."""
        return f"{clock}, lower quartile of {self.passes} passes of {self.samples} samples"


@dataclass(frozen=True, kw_only=True)
class MeasurementProgress:
    """How many measurements are made, what the last one was of, and the canary's largest drift beside what counts.

    The report that ends a batch has its rows.
    """

    done: int
    total: int
    key: str
    seconds_left: float
    max_drift: float
    finished: Mapping[str, LatencyRow] = field(default_factory=dict)


@dataclass(frozen=True)
class _Timing:
    """A workload's milliseconds in one pass, and the canary's drift around them."""

    samples: list[float]
    drift: float


@dataclass
class _Timings:
    """A workload's passes, or why it failed."""

    taken: list[_Timing] = field(default_factory=list)
    failure: str = ""

    def are_enough(self, protocol: Protocol) -> bool:
        """Whether another pass over this workload is needless."""
        return bool(self.failure) or (
            len(self.taken) >= protocol.passes and self._count_quiet(protocol) >= protocol.quiet_passes
        )

    def that_count(self, protocol: Protocol) -> list[_Timing]:
        """The quiet ones, or the quietest where these are too few; the least quiet one last."""
        ordered = sorted(self.taken, key=lambda one: one.drift)
        return ordered[: max(self._count_quiet(protocol), protocol.quiet_passes)]

    def _count_quiet(self, protocol: Protocol) -> int:
        return sum(one.drift <= protocol.quiet_drift for one in self.taken)


class _Canary:
    """A workload whose time tells how fast the machine is at the moment.

    `drift` is that of the last look, from the fastest that it has been: 0.5 where it took half as long again.
    """

    def __init__(self, workload: Workload, runner: Runner, protocol: Protocol) -> None:
        verify(runner, workload)
        self._workload, self._runner, self._samples = workload, runner, protocol.samples
        self._best_ms = math.inf
        for _ in range(protocol.passes):
            self.look()

    def look(self) -> None:
        """Times it now."""
        now_ms = median(self._runner.benchmark(self._workload, self._samples))
        self._best_ms = min(self._best_ms, now_ms)
        self.drift = now_ms / self._best_ms - 1


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
        timings = {key: _Timings() for key in batch}
        watcher.look()
        for _ in range(2 * protocol.passes):
            due = {key: workload for key, workload in batch.items() if not timings[key].are_enough(protocol)}
            for key in _pass(due, timings, watcher, runner, protocol):
                yield tally.count(key)
        rows |= {key: _row(timings[key], protocol) for key in batch}
        drifts = [timings[key].that_count(protocol)[-1].drift for key in batch if not timings[key].failure]
        tally.max_drift = max([tally.max_drift, *drifts])
        batch = {key: workload for key, workload in batch.items() if rows[key].state is RowState.QUARANTINED}
        if not batch:
            break
    return rows


def _pass(
    batch: Mapping[str, Workload],
    timings: Mapping[str, _Timings],
    watcher: _Canary,
    runner: Runner,
    protocol: Protocol,
) -> Generator[str, None, None]:
    """Times each workload once, the canary every second and at the end; yields the key of each measurement."""
    since = time.monotonic()
    unwatched: dict[str, list[float]] = {}  # measured since the canary was timed
    for number, (key, workload) in enumerate(batch.items(), start=1):
        try:
            if not timings[key].taken:
                verify(runner, workload)
            unwatched[key] = runner.benchmark(workload, protocol.samples)
        except MeasurementError as error:
            timings[key].failure = str(error)
        if number == len(batch) or time.monotonic() - since > protocol.canary_seconds:
            before = watcher.drift
            watcher.look()
            for measured, samples in unwatched.items():
                timings[measured].taken.append(_Timing(samples, max(before, watcher.drift)))
            since, unwatched = time.monotonic(), {}
        yield key


def _row(timings: _Timings, protocol: Protocol) -> LatencyRow:
    if timings.failure:
        nothing = {"milliseconds": 0.0, "lower_quartile": 0.0, "upper_quartile": 0.0}
        return LatencyRow(**nothing, samples=0, state=RowState.QUARANTINED, reason=timings.failure)
    passes = timings.that_count(protocol)
    samples = [sample for one in passes for sample in one.samples]
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
