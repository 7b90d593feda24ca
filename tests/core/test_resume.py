"""Real processes, killed by SIGKILL at chosen places until one of them finishes: what it leaves is what one that was
never disturbed leaves, byte for byte."""

import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fasterseg_core.checkpoint import CheckpointKind, load, save
from fasterseg_core.reports import StepReport
from fasterseg_core.retrain import Retrain
from fasterseg_core.search import Search
from tests.builders import (
    ColourBlocks,
    a_latency_table,
    a_retrain_config,
    a_search_config,
    a_search_space,
    an_architecture,
)

SPACE = a_search_space(num_layers=3, expansion_ratios=(1, 2), student_ratio=1)
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # torch is loaded once


class Place(NamedTuple):
    """Where a process is: it says so before and after it keeps its state."""

    phase: str
    epoch: int
    step: int | None  # None: the epoch is over
    kept: bool


def a_search():
    config = a_search_config(space=SPACE, pretrain_epochs=2, epochs=2)
    return Search(config, a_latency_table(SPACE), ColourBlocks(num_images=8), torch.device("cpu"))


def a_retraining():
    torch.manual_seed(0)
    return Retrain(a_retrain_config(), an_architecture(), ColourBlocks(num_images=8), torch.device("cpu"))


WORK = {CheckpointKind.SEARCH: a_search, CheckpointKind.RETRAINING: a_retraining}


def work(kind: CheckpointKind, path: Path, places: Connection) -> None:
    """Goes on where the file of this path stands, and keeps the state after every report."""
    torch.set_num_threads(1)
    run = WORK[kind]()
    if path.exists():
        run.load_state_dict(load(path, kind))
    for report in run.run():
        place = Place(report.phase, report.epoch, report.step if isinstance(report, StepReport) else None, False)
        places.send(place)
        save(run.state_dict(), kind, path)
        places.send(place._replace(kept=True))


def disturbed(kind: CheckpointKind, path: Path, kill_at: Place | None) -> list[Place]:
    """Where a process has been until it was killed at this place; to its end where there is none."""
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=work, args=(kind, path, there))
    process.start()
    there.close()
    places = []
    try:
        while kill_at is None or kill_at not in places:
            places.append(here.recv())
    except EOFError:
        assert kill_at is None, "the place was never reached"
    else:
        process.kill()
    process.join()
    assert process.exitcode == (0 if kill_at is None else -9)
    here.close()
    process.close()
    return places


@pytest.fixture(scope="module", params=list(WORK))
def undisturbed(request, tmp_path_factory):
    """The kind, the places of a whole run in their order, the bytes that it leaves."""
    path = tmp_path_factory.mktemp(request.param) / "state"
    return request.param, disturbed(request.param, path, None), path.read_bytes()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(undisturbed, tmp_path, seed):
    kind, places, expected = undisturbed
    path = tmp_path / "state"
    chosen = random.Random(seed).sample(places[:-2], 4)  # at the last ones it may end before it is killed
    if kind is CheckpointKind.SEARCH:
        chosen += [
            Place("pretrain", 1, 1, kept=True),  # within pretraining
            Place("search", 1, 1, kept=True),  # within an epoch of the search
            Place("search", 2, 2, kept=False),  # while the state is written
            Place("search", 1, None, kept=True),  # between two epochs
        ]

    for place in sorted(set(chosen), key=places.index):
        disturbed(kind, path, place)
    disturbed(kind, path, None)

    assert path.read_bytes() == expected
