from collections.abc import Iterator

import pytest

from services.workers.room import Resources, shortage, wait_for_room
from tests.workers.fakes import FakeAttempt

NEEDED = {"CPU": 2.0, "profiler": 0.9}
SMALL, PLAIN, WHOLE = {"CPU": 1.0}, {"CPU": 8.0}, {"CPU": 8.0, "profiler": 1.0}


@pytest.mark.parametrize("nodes", [[WHOLE], [SMALL, WHOLE]])
def test_nothing_is_missing_where_one_node_has_it_all(nodes: list[Resources]) -> None:
    assert shortage(NEEDED, nodes) is None


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([SMALL, PLAIN], "it needs 0.9 of the resource profiler, and the most that a node has is 0: start a node with"),
        ([{"CPU": 1.0, "profiler": 1.0}], "it needs 2 of the resource CPU, and the most that a node has is 1: lower"),
        ([{"CPU": 1.0, "profiler": 1.0}, PLAIN], "none has CPU 2, profiler 0.9 together"),
        ([], "it needs 2 of the resource CPU, and the most that a node has is 0"),
    ],
)
def test_what_no_node_has_is_named_with_the_fix(nodes: list[Resources], said: str) -> None:
    assert said in str(shortage(NEEDED, nodes))


def warnings(attempt: FakeAttempt) -> list[str]:
    return [str(data["message"]) for kind, data in attempt.events if kind == "warning"]


def placed_after(looks: int) -> Iterator[bool]:
    yield from [False] * looks
    yield True


def test_a_job_that_waits_for_others_alone_is_not_warned_of() -> None:
    attempt = FakeAttempt()

    assert wait_for_room(NEEDED, placed_after(2).__next__, lambda: [WHOLE], attempt)
    assert attempt.events == []


def test_what_is_missing_is_told_again_once_it_is_another() -> None:
    attempt = FakeAttempt()
    clusters = iter([[SMALL], [SMALL], [PLAIN], [WHOLE], [PLAIN]])

    assert wait_for_room(NEEDED, placed_after(5).__next__, clusters.__next__, attempt)
    assert [("CPU" in warning, "profiler" in warning) for warning in warnings(attempt)] == [
        (True, True),
        (False, True),
        (False, True),
    ]


def test_a_job_that_is_to_stop_waits_no_more() -> None:
    attempt = FakeAttempt(stop_after=0)

    assert not wait_for_room(NEEDED, lambda: False, lambda: [SMALL], attempt)
