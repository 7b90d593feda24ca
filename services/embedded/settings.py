"""Where an instance of the service lives on this machine; the settings of its processes follow from it."""

from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"  # the embedded service is for this machine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One instance: its state folder (absolute), ports, data sets and share of the machine's cores."""

    state: Path
    port: int
    dashboard_port: int
    profiler_port: int
    data_root: Path | None
    cpus: int

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{HOST}:{self.port}"

    @property
    def dashboard_url(self) -> str:
        """The address of Ray's dashboard and of its Jobs API."""
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def profiler_url(self) -> str:
        """The address of the profiler's Ray Serve app."""
        return f"http://{HOST}:{self.profiler_port}"

    @property
    def tensorboard_dir(self) -> Path:
        """The event files of searches and retrainings, one folder a job."""
        return self.state / "tensorboard"

    @property
    def api_token_file(self) -> Path:
        """The token that may do everything here, of the project `default`."""
        return self.state / "api.token"

    @property
    def profiler_token_file(self) -> Path:
        """What the control plane and the profiler show each other."""
        return self.state / "profiler.token"

    @property
    def token_file(self) -> Path:
        """The token that Ray asks of everyone."""
        return self.state / "ray.token"
