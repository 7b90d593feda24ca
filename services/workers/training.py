"""A search or a retraining from its latest checkpoint to its end, with an event file of all its attempts."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, cast

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.reports import EpochReport, Report
from services.client.attempt import AttemptClient
from services.client.schemas import Artifact
from services.workers.checkpoints import State, resume
from services.workers.event_file import EVENT_FILE, StepsState, event_file
from services.workers.following import follow
from services.workers.job import Job
from services.workers.outputs import store

S = TypeVar("S", bound=State)


class Training(Protocol[S]):
    """What the core's searches and retrainings have in common."""

    history: list[EpochReport]

    def run(self) -> Iterator[Report]: ...
    def state_dict(self) -> S: ...
    def load_state_dict(self, state: S) -> None: ...


def train(
    training: Training[S], kind: CheckpointKind, job: Job, attempt: AttemptClient, ratios: Sequence[int] = ()
) -> Artifact:
    """Its event file; `ratios` are the expansion ratios that gamma chooses from.

    Raises:
        Stopped: as `follow`.
    """
    with event_file(job.tensorboard, ratios) as events:

        def load(state: State) -> None:
            training.load_state_dict(cast(S, state))
            events.load(cast(StepsState, state["steps"]), training.history)

        def state() -> State:
            return {**training.state_dict(), "steps": events.state()}

        last = resume(load, kind, job.checkpoints, attempt)
        follow(events.recorded(training.run()), state, kind, last, attempt, job.metrics)
        return store(attempt, EVENT_FILE, events.finished())
