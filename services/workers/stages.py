"""What an attempt is at, stage by stage, as spans: setting up, each phase or epoch of it, and finishing."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from services.client.schemas import FailureClass, Progress

if TYPE_CHECKING:
    from services.telemetry.traces import Traces

SET_UP = "set up"
FINISH = "finish"


class Stages:
    """Divides an attempt by what it tells, as the `Meter` does: the first step belongs to the set-up.

    A stage becomes a span once it is over: a worker that is killed leaves those before. Without traces none does.
    """

    def __init__(
        self,
        traces: "Traces | None",
        traceparent: str | None,
        fields: Mapping[str, object],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._traces = traces
        self._traceparent = traceparent  # of the span of the attempt
        self._fields = fields  # of every stage
        self._clock = clock
        self._begun = self._last = clock()
        self._stage = (SET_UP, 0)  # phase and epoch; 0 where there are none

    def step(self, progress: Progress) -> None:
        """A step was made, perhaps the first of a stage, which it began; waiting has no steps, and begins now."""
        if not progress.steps or self._stage[0] == SET_UP:
            self.mark()
        self._enter(progress.phase, progress.epoch)
        self.mark()

    def mark(self) -> None:
        """Something that belongs to the present stage was done."""
        self._last = self._clock()

    def end(self, failure: FailureClass | None = None) -> None:
        """The attempt has ended: what came after the last step was the finish, unless it failed there."""
        if failure is None:
            self._enter(FINISH, 0)
        self.mark()
        self._tell(failure)

    def _enter(self, phase: str, epoch: int) -> None:
        if (phase, epoch) != self._stage:
            self._tell(None)
            self._stage, self._begun = (phase, epoch), self._last

    def _tell(self, failure: FailureClass | None) -> None:
        if self._traces is not None:
            phase, epoch = self._stage
            self._traces.past(
                phase if epoch == 0 else f"{phase} epoch {epoch}",
                self._traceparent,
                {**self._fields, "phase": phase, **({"epoch": epoch} if epoch else {})},
                begun=self._begun,
                ended=self._last,
                failure=failure,
            )
