"""The settings of the profiler's Serve application, read from variables named FASTERSEG_*."""

from typing import Annotated

from pydantic import Field, SecretStr

from services.telemetry.settings import TelemetrySettings


class Settings(TelemetrySettings):
    """The defaults are the embedded service's: everything on this machine."""

    control_plane_url: str = "http://127.0.0.1:8000"
    host: str = "127.0.0.1"  # of Ray Serve's proxies
    port: int = 8001
    profiler_token: Annotated[SecretStr, Field(min_length=16)]  # shared with the control plane
