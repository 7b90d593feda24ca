"""What is written is read back with TensorBoard's own reader."""

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fasterseg_core.checkpoint import CheckpointKind, pack, unpack
from fasterseg_core.reports import EpochReport, Report, StepReport
from services.workers.event_file import EVENT_FILE, EventFile, event_file
from tests.workers.event_files import reader, scalars

RATIOS = (2, 3, 4)
RELAXATION = {
    "alpha.8": [[0.1, 0.2, 0.3, 0.4, 0.0]] * 4,
    "alpha.16": [[0.2, 0.2, 0.2, 0.2, 0.2]] * 3,
    "beta.16": [[0.9, 0.1]] * 2,
    "beta.32": [],
    "gamma.8": [[0.5, 0.25, 0.25]] * 3,
}


def a_step(phase: str, epoch: int, step: int, latency_ms: float | None = None) -> StepReport:
    return StepReport(
        phase=phase,
        epoch=epoch,
        epochs=2,
        step=step,
        steps=2,
        fraction=0.5,
        loss=10.0 * epoch + step,
        latency_ms=latency_ms,
    )


def a_search_epoch(epoch: int) -> EpochReport:
    return EpochReport(
        phase="search",
        epoch=epoch,
        loss=2.0,
        architecture_loss=3.0,
        relaxed_latency_ms=9.0,
        latency_ms=8.0,
        miou=0.25,
        latency_weight=0.01,
        head_mious={"8": 0.125, "8+16": 0.5},
        alpha_entropy=0.75,
        warning="skips everywhere" if epoch == 2 else None,
        relaxation=RELAXATION,
    )


def reports() -> Iterator[Report]:
    """A pretraining epoch and two search epochs, two steps each."""
    yield from (a_step("pretrain", 1, step) for step in (1, 2))
    yield EpochReport(phase="pretrain", epoch=1, loss=5.0)
    for epoch in (1, 2):
        yield from (a_step("search", epoch, step, latency_ms=6.0 + epoch) for step in (1, 2))
        yield a_search_epoch(epoch)


def pictures(events: EventAccumulator) -> dict[str, list[tuple[int, bytes]]]:
    return {
        tag: [(event.step, event.encoded_image_string) for event in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


def written(folder: Path, found: Iterator[Report]) -> EventAccumulator:
    with event_file(folder, RATIOS) as events:
        assert list(events.recorded(found)) == list(reports())
    return reader(folder)


def test_steps_and_epochs_are_curves(tmp_path: Path) -> None:
    curves = scalars(written(tmp_path, reports()))

    assert curves["loss/pretrain_step"] == [(1, 11.0), (2, 12.0)]
    assert curves["loss/search_step"] == [(1, 11.0), (2, 12.0), (3, 21.0), (4, 22.0)]
    assert curves["latency_ms/supernet_step"] == [(1, 7.0), (2, 7.0), (3, 8.0), (4, 8.0)]
    assert curves["loss/pretrain"] == [(1, 5.0)]
    assert curves["loss/search"] == [(1, 2.0), (2, 2.0)]
    assert curves["loss/architecture"] == [(1, 3.0), (2, 3.0)]
    assert curves["latency_ms/supernet"] == [(1, 9.0), (2, 9.0)]
    assert curves["latency_ms/student"] == [(1, 8.0), (2, 8.0)]
    assert curves["miou/holdout"] == [(1, 0.25), (2, 0.25)]
    assert curves["miou_of_head/8"] == [(1, 0.125), (2, 0.125)]
    assert curves["miou_of_head/8+16"] == [(1, 0.5), (2, 0.5)]
    assert curves["collapse/alpha_entropy"] == [(1, 0.75), (2, 0.75)]
    assert "collapse/skip_share" not in curves


def test_a_warning_is_a_text(tmp_path: Path) -> None:
    events = written(tmp_path, reports())

    ((step, text),) = [
        (event.step, event.tensor_proto.string_val[0]) for event in events.Tensors("collapse/warning/text_summary")
    ]
    assert (step, text) == (2, b"skips everywhere")


def test_the_scalars_of_the_student_are_pictures(tmp_path: Path) -> None:
    found = pictures(written(tmp_path, reports()))

    assert {tag: [step for step, _ in images] for tag, images in found.items()} == {
        "alpha/8": [1, 2],
        "alpha/16": [1, 2],
        "beta/16": [1, 2],
        "gamma/8": [1, 2],
    }
    larger, smaller = (np.array(Image.open(BytesIO(found[tag][0][1]))) for tag in ("alpha/8", "beta/16"))
    assert larger.shape[0] > smaller.shape[0]
    assert larger.shape[1] > smaller.shape[1]
    assert larger.std() > 10


def test_an_attempt_that_resumes_leaves_every_value_once(tmp_path: Path) -> None:
    undisturbed = written(tmp_path / "undisturbed", reports())
    history = [report for report in islice(reports(), 6) if isinstance(report, EpochReport)]
    folder = tmp_path / "resumed"
    first = EventFile(folder, RATIOS)
    list(first.recorded(islice(reports(), 7)))
    watching = reader(folder)
    killed = EventFile(tmp_path / "other", RATIOS)
    list(killed.recorded(islice(reports(), 6)))
    state = unpack(pack(killed.state(), CheckpointKind.SEARCH), CheckpointKind.SEARCH)

    with event_file(folder, RATIOS) as again:
        again.load(state, history)  # type: ignore[arg-type]
        list(again.recorded(islice(reports(), 6, None)))
        assert again.state().keys() == {"pretrain", "search"}

    for events in (reader(folder), watching.Reload()):
        assert scalars(events) == scalars(undisturbed)
        assert pictures(events) == pictures(undisturbed)
    first.close()
    killed.close()


def test_the_finished_file_is_readable_under_its_name(tmp_path: Path) -> None:
    with event_file(None, RATIOS) as events:
        list(events.recorded(reports()))
        (tmp_path / EVENT_FILE).write_bytes(events.finished())

    assert scalars(reader(tmp_path))["loss/search_step"][-1] == (4, 22.0)


def test_a_file_that_nobody_watches_is_gone_in_the_end() -> None:
    with event_file(None) as events:
        folder = Path(events._writer.log_dir)
        assert folder.exists()

    assert not folder.exists()
