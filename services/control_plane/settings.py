"""The settings of the control plane, read from variables named FASTERSEG_*."""

import sys
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints, model_validator

from services.client.schemas import Scope
from services.telemetry.settings import TelemetrySettings

MEBIBYTE = 1 << 20
WEEK_MINUTES = 7 * 24 * 60  # S3 signs nothing for longer

# An address without a path, which could not be put before the one that is signed; none where it is empty.
Origin = Annotated[
    Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+/?$")] | None,
    BeforeValidator(lambda url: url or None),
]


class Settings(TelemetrySettings):
    """The defaults are the embedded service's: everything on this machine, in one state folder."""

    state_folder: Path = Path(".fasterseg")
    database_url: SecretStr | None = None  # SQLAlchemy's; SQLite in the state folder where it is left out
    s3_endpoint: str | None = None  # host:port; the folder `blobs` of the state folder where it is left out
    s3_bucket: str = "fasterseg"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = True
    s3_region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    s3_public_url: Origin = None  # where users are sent for blobs; these come through here where it is left out
    s3_worker_url: Origin = None  # likewise for workers
    s3_link_minutes: float = Field(default=15.0, ge=1, le=WEEK_MINUTES)

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None  # how workers reach this process; its own address where it is left out
    max_document_bytes: int = 8 * MEBIBYTE  # a hundred times a table; as numbers it takes 50 times as much memory
    max_blob_bytes: int = 4096 * MEBIBYTE
    requests_per_second: float = Field(default=500.0, gt=0)  # of a token, and of an address's other requests
    request_burst: int = Field(default=2000, ge=1)  # at once, after a pause
    failures_per_minute: float = Field(default=120.0, ge=1)  # of an address: tokens that are refused

    ray_address: str = "http://127.0.0.1:8265"
    ray_token_path: Path | None = None  # of the token that Ray's API asks for
    worker_command: str = f"{sys.executable} -m services.workers"
    instance: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,29}$")] = "fasterseg"  # prefix of Ray's ids
    dispatch_seconds: float = Field(default=2.0, gt=0)
    max_running_jobs: int = Field(default=4, ge=1)
    max_running_jobs_per_project: int | None = Field(default=None, ge=1)  # no project keeps the others from running
    cancel_grace_seconds: float = Field(default=60.0, ge=0)
    blob_hours: float = Field(default=24.0, ge=1)  # a blob that nothing names is kept for this long

    profiler_url: str = "http://127.0.0.1:8001"
    profiler_token: Annotated[SecretStr, Field(min_length=16)]  # shared with it
    first_token_path: Path | None = None  # of a secret that is made a token of scope `operator` at each start

    oidc_issuer: Annotated[str, StringConstraints(pattern=r"^https://[^\s?#]+$")] | None = None  # whose JWTs are let in
    oidc_audience: Annotated[str, StringConstraints(min_length=1)] | None = None  # whom they must be meant for
    oidc_project_claim: str = "project"
    oidc_scope_claim: str = "scope"
    oidc_scopes: Annotated[dict[str, Scope], Field(min_length=1)] = {scope.value: scope for scope in Scope}
    oidc_refresh_seconds: float = Field(default=30.0, ge=1)  # the issuer is asked for a key at most so often

    @model_validator(mode="after")
    def _audience_is_named(self) -> Self:
        if self.oidc_issuer is not None and self.oidc_audience is None:
            raise ValueError(
                "oidc_audience must be set where oidc_issuer is: JWTs that are meant for others would be let in"
            )
        return self

    @model_validator(mode="after")
    def _links_have_a_store(self) -> Self:
        if self.s3_endpoint is None and (self.s3_public_url or self.s3_worker_url) is not None:
            raise ValueError(
                "s3_endpoint must be set where s3_public_url or s3_worker_url is: there are no links to a folder"
            )
        return self

    @property
    def database(self) -> str:
        """The database's URL, with the password in it."""
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.embedded_database}"

    @property
    def embedded_database(self) -> Path:
        """SQLite's file."""
        return self.state_folder.absolute() / "fasterseg.db"

    @property
    def worker_url(self) -> str:
        """The address that workers are given."""
        return self.public_url or f"http://{self.host}:{self.port}"
