"""How a process is watched: a part of the settings of each."""

from pydantic_settings import BaseSettings, SettingsConfigDict

from services.telemetry.logs import LogFormat, LogLevel


class TelemetrySettings(BaseSettings):
    """Values that cannot be used are not repeated in errors: some of them are secrets."""

    model_config = SettingsConfigDict(env_prefix="FASTERSEG_", hide_input_in_errors=True)

    log_format: LogFormat = LogFormat.TEXT
    log_level: LogLevel = LogLevel.INFO
