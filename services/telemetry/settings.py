"""How a process is watched: a part of the settings of each."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.telemetry.logs import LogFormat, LogLevel

if TYPE_CHECKING:
    from services.telemetry.traces import Traces


class TelemetrySettings(BaseSettings):
    """Values that cannot be used are not repeated in errors: some of them are secrets."""

    model_config = SettingsConfigDict(env_prefix="FASTERSEG_", hide_input_in_errors=True)

    log_format: LogFormat = LogFormat.TEXT
    log_level: LogLevel = LogLevel.INFO
    # Under OpenTelemetry's own name, for its SDK reads the rest: headers, certificate, sampler, resource attributes.
    otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$")] = Field(
        default="", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT"
    )


def open_traces(otlp_endpoint: str, process: str) -> "Traces | None":
    """What sends the spans of a process where a collector is named; only there is OpenTelemetry's SDK imported."""
    if not otlp_endpoint:
        return None
    from services.telemetry.traces import Traces

    return Traces(otlp_endpoint, process)
