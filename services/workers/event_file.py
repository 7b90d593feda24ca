"""A TensorBoard event file of a search or a retraining: `tensorboard --logdir FOLDER` shows it, even a growing one.

An attempt that resumes begins a new file with what its checkpoint knows: the steps of this record and the epochs of the
history. So the newest file always holds the whole run and every value once. It begins with the note that everything
before is void, by which TensorBoard forgets an earlier attempt's file in the same folder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from fasterseg_core.figures import choices_heat_map
from fasterseg_core.reports import EpochReport, Report, StepReport
from fasterseg_core.search_space import OPERATORS

EVENT_FILE = "events.tfevents"  # the artifact; TensorBoard reads files with "tfevents" in their names
FLUSH_SECONDS = 5  # how long a value stays unseen
NO_LATENCY = float("nan")

EPOCH_TAGS = {  # by the fields of EpochReport
    "architecture_loss": "loss/architecture",
    "relaxed_latency_ms": "latency_ms/supernet",
    "latency_ms": "latency_ms/student",
    "miou": "miou/holdout",
    "latency_weight": "latency_weight/lambda",
    "alpha_entropy": "collapse/alpha_entropy",
    "skip_share": "collapse/skip_share",
    "narrowest_share": "collapse/narrowest_share",
    "latency_slope": "collapse/latency_slope",
    "miou_slope": "collapse/miou_slope",
}


StepsState = Mapping[str, Tensor]  # by phase: loss and latency of each step, float64 (steps, 2)


class EventFile:
    """Writes one event file, anew, into a folder; `ratios` are the expansion ratios that gamma chooses from."""

    def __init__(self, folder: Path, ratios: Sequence[int] = ()) -> None:
        earlier = set(folder.glob("*"))
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=FLUSH_SECONDS)
        (self._path,) = set(folder.glob("*")) - earlier
        self._ratios = ratios
        self._steps: dict[str, list[tuple[float, float]]] = {}  # by phase: loss and latency of each step

    def recorded(self, reports: Iterable[Report]) -> Iterator[Report]:
        """The same reports, each written before it is yielded."""
        for report in reports:
            match report:
                case StepReport():
                    latency_ms = NO_LATENCY if report.latency_ms is None else report.latency_ms
                    self._write_step(report.phase, report.loss, latency_ms)
                case EpochReport():
                    self._write_epoch(report)
            yield report

    def state(self) -> StepsState:
        """What a checkpoint keeps."""
        return {phase: torch.tensor(steps, dtype=torch.float64) for phase, steps in self._steps.items()}

    def load(self, state: StepsState, history: Iterable[EpochReport]) -> None:
        """Writes everything up to a checkpoint."""
        for phase, steps in state.items():
            for loss, latency_ms in steps.tolist():
                self._write_step(phase, loss, latency_ms)
        for report in history:
            self._write_epoch(report)

    def finished(self) -> bytes:
        """The whole file; nothing is written after this."""
        self.close()
        return self._path.read_bytes()

    def close(self) -> None:
        """Everything is on disk after this."""
        self._writer.close()

    def _write_step(self, phase: str, loss: float, latency_ms: float) -> None:
        steps = self._steps.setdefault(phase, [])
        steps.append((loss, latency_ms))
        self._writer.add_scalar(f"loss/{phase}_step", loss, len(steps))
        if latency_ms == latency_ms:  # a number
            self._writer.add_scalar("latency_ms/supernet_step", latency_ms, len(steps))

    def _write_epoch(self, report: EpochReport) -> None:
        self._writer.add_scalar(f"loss/{report.phase}", report.loss, report.epoch)
        for field, tag in EPOCH_TAGS.items():
            if (value := getattr(report, field)) is not None:
                self._writer.add_scalar(tag, value, report.epoch)
        for head, miou in (report.head_mious or {}).items():
            self._writer.add_scalar(f"miou_of_head/{head}", miou, report.epoch)
        if report.warning is not None:
            self._writer.add_text("collapse/warning", report.warning, report.epoch)
        tables = (report.relaxation or {}).items()
        relaxation = {name: rows for name, rows in tables if rows}  # of 3 layers, none has a choice in beta.32
        num_layers = max(map(len, relaxation.values()), default=0)  # alpha at 1/8 has every layer, all end at the last
        for name, rows in relaxation.items():
            kind, _, rate = name.partition(".")
            picture = choices_heat_map(
                rows,
                range(num_layers - len(rows), num_layers),
                self._choices(kind, int(rate)),
                f"{kind} at s = {rate}",
            )
            self._writer.add_image(f"{kind}/{rate}", picture, report.epoch, dataformats="HWC")
        self._writer.flush()

    def _choices(self, kind: str, rate: int) -> list[str]:
        match kind:
            case "alpha":
                names = (operator.value.replace("_", " ") for operator in OPERATORS)
                return [name.replace("zoomed ", "zoomed\n") for name in names]
            case "beta":
                return [f"from s = {rate // 2}", f"from s = {rate}"]
            case _:
                return [str(ratio) for ratio in self._ratios]


@contextmanager
def event_file(folder: Path | None, ratios: Sequence[int] = ()) -> Iterator[EventFile]:
    """An event file in a folder where it can be watched, or else in one that is gone in the end."""
    with (
        TemporaryDirectory(prefix="events-") as temporary,
        closing(EventFile(folder or Path(temporary), ratios)) as events,
    ):
        yield events
