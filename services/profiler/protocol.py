"""How workloads are measured: in interleaved passes, at the speed of a canary, as the lower quartile of all samples.

A machine that others use drifts by several percent within minutes, and is slowed by half for seconds. A canary, an
operator of middling size, is therefore timed before and after a workload: by as much as it took longer than its
reference around that moment, the workload is taken to have taken longer, too, and a time beside which it was far from
its reference is taken again. Other work can only add to a time, so the lower quartile is nearer to an undisturbed
machine's than the median. Workloads are measured in batches, so that few are in memory at once; one that fails or
scatters is tried again, and in the end quarantined with the reason.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median

import numpy as np

from fasterseg_core.config import ExportConfig, ProfileConfig
from fasterseg_core.latency_table import LatencyRow, RowState
from services.profiler.errors import MeasurementError
from services.profiler.runners import Runner, Workload, verify

FIRST_READINGS = 20  # of the canary: an episode of slowness must not become its reference
READINGS = 4  # before and after a moment
READING_SAMPLES = 10
READING_SHARE = 0.05  # of the time, at most


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
    quiet_drift: float = 0.15  # of the canary from its reference; beside a greater one, a time is taken again
    max_drift: float = 1.0  # of the canary beside the best times that could be had; beyond it they are not used
    max_spread: float = 0.5  # distance of the quartiles as a share of the lower one
    accept_noise: bool = False  # rows that drift or scatter more than this at every attempt are kept with the reason

    def __post_init__(self) -> None:
        if min(self.passes, self.samples, self.batch_size, self.attempts) < 1:
            raise ValueError("passes, samples, batch_size and attempts must be positive")

    def describe(self, clock: str) -> str:
        """The protocol as a fingerprint records it."""
        measured = f"{clock} at the canary's speed, lower quartile of {self.passes} passes of {self.samples} samples"
        return measured + (", noise accepted" if self.accept_noise else "")


def protocol_of(config: ProfileConfig | ExportConfig) -> Protocol:
    """How a table or an exported network is measured."""
    return Protocol(passes=config.passes, samples=config.samples, accept_noise=config.accept_noise)


@dataclass(frozen=True, kw_only=True)
class MeasurementProgress:
    """How many measurements are made, what the last one was of, and the canary's largest drift beside times used.

    The report that ends a batch has its rows.
    """

    done: int
    total: int
    key: str
    seconds_left: float
    max_drift: float
    finished: Mapping[str, LatencyRow] = field(default_factory=dict)


@dataclass(frozen=True)
class _Times:
    """The milliseconds of a workload in one pass and the GPU's clock then; the canary's drift around it, how often that
    had been read before."""

    samples: Sequence[float]
    sm_mhz: int | None
    drift: float
    readings_before: int


class _Canary:
    """A workload whose time tells how fast the machine is at the moment, read in at most a twentieth of the time.

    One reading is as uncertain as any time; how slow the machine is follows from the median of some around the moment.
    """

    def __init__(
        self, workload: Workload, runner: Runner, reference_ms: float | None, clock: Callable[[], float]
    ) -> None:
        verify(runner, workload)
        self._workload, self._runner, self._clock = workload, runner, clock
        self._readings: list[float] = []
        for _ in range(FIRST_READINGS):
            self._read()
        self._reference_ms = float(np.percentile(self._readings, 25)) if reference_ms is None else reference_ms

    def look(self) -> int:
        """Reads it, unless the last reading is recent; how often it has been read."""
        if self._clock() >= self._read_again_at:
            self._read()
        return len(self._readings)

    def drift(self, before: int, after: int) -> float:
        """The larger of two readings, each the last one when it had been read so often; 0.5: half as long again."""
        return max(self._readings[before - 1], self._readings[after - 1]) / self._reference_ms - 1

    def slowdown(self, num_readings: int) -> float:
        """How many times its reference it took around the moment when it had been read so often."""
        around = self._readings[max(0, num_readings - READINGS) : num_readings + READINGS]
        return median(around) / self._reference_ms

    def _read(self) -> None:
        started = self._clock()
        try:
            samples, _ = _timed(self._runner, self._workload, READING_SAMPLES)
        except MeasurementError as error:
            raise MeasurementError(f"the canary: {error}") from error
        self._readings.append(float(np.percentile(samples, 25)))  # as a row, which may be its reference
        now = self._clock()
        self._read_again_at = now + (now - started) / READING_SHARE


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
    reference_ms: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[MeasurementProgress, None, dict[str, LatencyRow]]:
    """Yields after every measurement and every batch, and returns the row of every key.

    Rows that are known are not measured. Each workload is built once, with its batch, and dropped with it. Times are
    those of a machine on which the canary takes `reference_ms`, or else what it takes at the beginning.

    Raises:
        MeasurementError: the canary itself cannot be measured.
    """
    rows = {key: row for key, row in (known or {}).items() if key in workloads}
    remaining = iter([(key, build) for key, build in workloads.items() if key not in rows])
    tally = _Tally(len(rows), len(workloads), protocol.passes)
    watcher: _Canary | None = None  # a table that is complete needs none
    while batch := {key: build() for key, build in islice(remaining, protocol.batch_size)}:
        watcher = watcher or _Canary(canary, runner, reference_ms, clock)
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
        taken: dict[str, list[_Times]] = {key: [] for key in batch}
        failures: dict[str, str] = {}
        for key in _passes(batch, taken, failures, watcher, runner, protocol):
            yield tally.count(key)
        rows |= {key: _refused(reason) for key, reason in failures.items()}
        for key in (key for key in batch if key not in failures):
            best = sorted(taken[key], key=lambda times: times.drift)[: protocol.passes]
            tally.max_drift = max(tally.max_drift, best[-1].drift)
            rows[key] = _row(best, watcher, protocol, runner.identity.clock_error_ms)
        batch = {key: workload for key, workload in batch.items() if rows[key].state is RowState.QUARANTINED}
        if not batch:
            break
    if protocol.accept_noise:
        rows |= {key: replace(rows[key], state=RowState.MEASURED) for key in batch if rows[key].samples}
    return rows


def _passes(
    batch: Mapping[str, Workload],
    taken: Mapping[str, list[_Times]],
    failures: dict[str, str],
    watcher: _Canary,
    runner: Runner,
    protocol: Protocol,
) -> Generator[str, None, None]:
    """Fills in `taken` until enough times of each workload are quiet, in at most twice the passes; or `failures`.

    Yields the key of each measurement.
    """
    for number in range(2 * protocol.passes):
        for key, workload in batch.items():
            num_quiet = sum(times.drift <= protocol.quiet_drift for times in taken[key])
            if key in failures or num_quiet == protocol.passes:
                continue
            try:
                if number == 0:
                    verify(runner, workload)
                before = watcher.look()
                samples, sm_mhz = _timed(runner, workload, protocol.samples)
                drift = watcher.drift(before, watcher.look())
            except MeasurementError as error:
                failures[key] = str(error)
            else:
                taken[key].append(_Times(samples, sm_mhz, drift, before))
            yield key


def _timed(runner: Runner, workload: Workload, samples: int) -> tuple[list[float], int | None]:
    """Milliseconds, and the GPU's clock beside them; MeasurementError also where it slows itself down meanwhile."""
    milliseconds = runner.benchmark(workload, samples)
    return milliseconds, runner.sm_mhz()


def _refused(reason: str) -> LatencyRow:
    return LatencyRow(
        milliseconds=0.0, lower_quartile=0.0, upper_quartile=0.0, samples=0, state=RowState.QUARANTINED, reason=reason
    )


def _row(passes: Sequence[_Times], watcher: _Canary, protocol: Protocol, clock_error_ms: float) -> LatencyRow:
    """Of passes in the order of their drift."""
    samples = np.concatenate([np.array(times.samples) / watcher.slowdown(times.readings_before) for times in passes])
    lower, upper = (float(value) for value in np.percentile(samples, (25, 75)))
    reason = ""
    if passes[-1].drift > protocol.max_drift:
        reason = f"the canary took {passes[-1].drift:.0%} longer than its reference"
    elif upper - lower > max(protocol.max_spread * lower, clock_error_ms):
        reason = f"unstable: half of the samples lie between {lower:.3f} and {upper:.3f} ms"
    return LatencyRow(
        milliseconds=lower,
        lower_quartile=lower,
        upper_quartile=upper,
        samples=len(samples),
        sm_mhz=min((times.sm_mhz for times in passes if times.sm_mhz is not None), default=None),
        state=RowState.QUARANTINED if reason else RowState.MEASURED,
        reason=reason,
    )
