"""What a worker is told through its environment, in variables named FASTERSEG_*."""

from pathlib import Path
from tempfile import gettempdir

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.telemetry.settings import TelemetrySettings


class Settings(TelemetrySettings):
    """The first four come with the attempt, the others are set on the node."""

    model_config = SettingsConfigDict(frozen=True)

    control_plane_url: str
    submission_id: str
    ticket: str
    traceparent: str | None = None  # of the span that the attempt's belong to
    data_root: Path | None = None  # data sets are folders in it, by their names
    tensorboard_dir: Path | None = None  # event files are written live into folders in it, one a job
    data_memory_mb: int = Field(default=512, ge=0)  # data sets whose pixels take less are decoded once
    lock_dir: Path = Path(gettempdir())  # processes that share it never measure on one device at a time
    job_cpus: int = Field(default=1, ge=1)  # cores that one job takes
