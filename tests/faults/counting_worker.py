"""A worker whose work is to count, quickly and without torch training: what it tells and keeps goes the real ways.

It writes each step that it takes into a file, so that a test sees what was done again, and what is still done after
the attempt was lost. Its state is a chain of digests: only whoever took every step once, in order, has the last one.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

from fasterseg_core.checkpoint import CheckpointKind
from fasterseg_core.reports import EpochReport, Report, StepReport
from services.client.attempt import AttemptClient, redeem
from services.client.attempt_schemas import Assignment, AttemptSuccess
from services.client.errors import LeaseLost
from services.client.schemas import Artifact
from services.workers.checkpoints import State, resume
from services.workers.following import follow
from services.workers.job import Stopped
from tests.storage.builders import a_latency_table_document
from tests.workers.fakes import FakeMetrics

FOLDER = "FAULTS_FOLDER"  # variable: where the plan is read and steps are written
KIND = CheckpointKind.SEARCH


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much there is to count, and how slowly. A checkpoint follows the first step and every epoch."""

    epochs: int = 4
    steps: int = 5  # of an epoch
    step_seconds: float = 0.02
    state_bytes: int = 1000  # of a checkpoint

    def write(self, folder: Path) -> None:
        """Makes it the plan of the attempts that start from now on."""
        (folder / "plan.json").write_bytes(_PLAN.dump_json(self))

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps


_PLAN = TypeAdapter(Plan)


def steps_taken(folder: Path, job: str) -> list[tuple[int, int]]:
    """The (epoch of the attempt, step) of each step taken for a job, in their order."""
    path = folder / f"{job}.steps"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(epoch), int(step)) for epoch, step in (line.split() for line in lines)]


def undisturbed(plan: Plan) -> str:
    """The chain at the end of a plan that was worked through without a fault."""
    chain = ""
    for step in range(1, plan.total + 1):
        chain = _link(chain, step)
    return chain


def work(environment: Mapping[str, str]) -> None:
    """An attempt, as the driver and its task run one."""
    url, submission_id = environment["FASTERSEG_CONTROL_PLANE_URL"], environment["FASTERSEG_SUBMISSION_ID"]
    try:
        assignment, attempt = redeem(url, submission_id, environment["FASTERSEG_TICKET"])
        with attempt:
            count(assignment, Path(environment[FOLDER]), attempt)
    except LeaseLost as error:
        print(f"stopped: {error}", flush=True)


def count(assignment: Assignment, folder: Path, attempt: AttemptClient) -> None:
    """The work of an attempt, from its last checkpoint to its end."""
    plan = _PLAN.validate_json((folder / "plan.json").read_bytes())
    counter = Counter(plan, folder / f"{assignment.job}.steps", assignment.epoch)
    last = resume(counter.load_state_dict, KIND, assignment.checkpoints, attempt)
    try:
        follow(counter.run(), counter.state_dict, KIND, last, attempt, FakeMetrics(), clock=lambda: 0.0)
    except Stopped:
        attempt.stopped()
        return
    sha256, size = attempt.upload(f"{counter.chain}\n".encode())
    attempt.succeed(
        AttemptSuccess(
            result={"chain": counter.chain, "epoch": assignment.epoch},
            artifacts=[Artifact(name="chain.txt", sha256=sha256, size=size, media_type="text/plain")],
            latency_table=a_latency_table_document(),
        )
    )


class Counter:
    """The work: one generator of reports, as a search is."""

    def __init__(self, plan: Plan, log: Path, epoch: int) -> None:
        self._plan = plan
        self._log = log
        self._epoch = epoch
        self._step = 0
        self.chain = ""

    def run(self) -> Iterator[Report]:
        """Counts on from where the state is."""
        plan = self._plan
        while self._step < plan.total:
            time.sleep(plan.step_seconds)
            self._step += 1
            self.chain = _link(self.chain, self._step)
            with self._log.open("a") as log:
                log.write(f"{self._epoch} {self._step}\n")
            done, within = divmod(self._step - 1, plan.steps)
            yield StepReport(
                phase="count",
                epoch=done + 1,
                epochs=plan.epochs,
                step=within + 1,
                steps=plan.steps,
                fraction=self._step / plan.total,
                loss=1.0 / self._step,
            )
            if within + 1 == plan.steps:
                yield EpochReport(phase="count", epoch=done + 1, loss=1.0 / self._step)

    def state_dict(self) -> State:
        """Where it is; the ballast depends on the step, so that no two checkpoints of a run are equal."""
        ballast = torch.full((self._plan.state_bytes,), self._step % 256, dtype=torch.uint8)
        return {"step": self._step, "chain": self.chain, "ballast": ballast}

    def load_state_dict(self, state: State) -> None:
        """Goes on from there."""
        self._step, self.chain = TypeAdapter(int).validate_python(state["step"]), str(state["chain"])


def _link(chain: str, step: int) -> str:
    return hashlib.sha256(f"{chain} {step}".encode()).hexdigest()


if __name__ == "__main__":
    work(os.environ)
