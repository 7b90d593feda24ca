import pytest

from services.profiler.cpu_timing import SAMPLE_SECONDS, sample


class Execution:
    """Takes so many seconds, the last for ever, by its own clock."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.now, self.count = list(seconds), 0.0, 0

    def __call__(self) -> None:
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.count += 1


def test_an_execution_that_cold_caches_cannot_slow_needs_none_to_warm_up() -> None:
    execute = Execution(0.05, 0.03, 0.02)

    assert sample(execute, 3, lambda: execute.now) == pytest.approx([50, 30, 20])
    assert execute.count == 3


def test_a_long_execution_is_timed_by_itself_after_one_that_warms_up() -> None:
    execute = Execution(0.005, 0.003, 0.001, 0.002)

    assert sample(execute, 3, lambda: execute.now) == pytest.approx([3, 1, 2])
    assert execute.count == 4


def test_a_short_execution_is_repeated_until_the_clock_can_tell() -> None:
    execute = Execution(1e-5)

    assert sample(execute, 2, lambda: execute.now) == pytest.approx([0.01, 0.01])
    assert execute.count >= 2 + 2 * SAMPLE_SECONDS / 1e-5


def test_an_execution_that_takes_no_time_is_not_repeated_for_ever() -> None:
    execute = Execution(0.0)

    assert sample(execute, 1, lambda: execute.now) == [0]
    assert execute.count < 600
