"""What a job leaves behind: files by digest, and plain JSON of the core's values."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from fasterseg_core.reports import EpochReport
from services.client.attempt import AttemptClient
from services.client.schemas import Artifact, JsonObject

MEDIA_TYPES = {
    "cache": "application/octet-stream",
    "json": "application/json",
    "onnx": "application/octet-stream",
    "plan": "application/octet-stream",
    "png": "image/png",
    "safetensors": "application/octet-stream",
    "svg": "image/svg+xml",
    "tfevents": "application/octet-stream",
}


def store(attempt: AttemptClient, name: str, data: bytes) -> Artifact:
    """Uploads a file; its ending tells its media type."""
    sha256, size = attempt.upload(data)
    return Artifact(name=name, sha256=sha256, size=size, media_type=MEDIA_TYPES[name.rpartition(".")[2]])


def store_json(attempt: AttemptClient, name: str, value: object) -> Artifact:
    """Uploads a plain value as JSON."""
    return store(attempt, name, json.dumps(value, indent=1).encode())


def history(reports: Sequence[EpochReport]) -> list[dict[str, object]]:
    """The epochs as plain values."""
    return [asdict(report) for report in reports]


def json_object(value: object) -> JsonObject:
    """A dataclass or a typed dictionary as JSON values."""
    document: JsonValue = TypeAdapter(JsonValue).validate_python(
        TypeAdapter(type(value)).dump_python(value, mode="json")
    )
    assert isinstance(document, dict)
    return document
