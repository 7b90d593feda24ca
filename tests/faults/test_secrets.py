"""Secrets of a service that runs a job and refuses requests: nothing that it tells has one."""

import json
import uuid
from pathlib import Path
from typing import get_args

import httpx
import pytest
from pydantic import SecretStr

from services.control_plane.settings import Settings
from tests.faults.conftest import MakeService
from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_stand_in import RayStandIn
from tests.serving import TOKEN

SECRET_SETTINGS = {"DATABASE_URL", "PROFILER_TOKEN", "S3_SECRET_KEY"}


def a_canary() -> str:
    return f"canary-{uuid.uuid4().hex}"


def test_every_secret_setting_has_its_canary():
    kinds = {name.upper(): field.annotation for name, field in Settings.model_fields.items()}

    assert {name for name, kind in kinds.items() if SecretStr in (kind, *get_args(kind))} == SECRET_SETTINGS


@pytest.mark.row(21, "canaries in every secret setting and token: in no log, event, Ray job, refusal or figure")
def test_nothing_that_a_service_tells_has_a_secret(
    make_service: MakeService, ray: RayStandIn, tmp_path: Path, record_property
):
    secrets = {name: a_canary() for name in SECRET_SETTINGS}
    ray.token, wrong = a_canary(), a_canary()
    database = f"sqlite:///{tmp_path / secrets['DATABASE_URL']}"
    service = make_service(**{**secrets, "DATABASE_URL": database, "LOG_LEVEL": "debug"})
    plane = service.start()
    service.plan(Plan(epochs=1, steps=2))
    job = service.submit()
    service.succeeded(job)
    service.wait_for_logs()
    with service.client() as client:
        made = client.create_token("ana", "read").secret

    told = {"Ray's jobs": json.dumps(ray.submitted)}
    api = httpx.Client(base_url=f"{plane.url}/api/v1/", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    with api:
        for path in (
            f"jobs/{job}",
            f"jobs/{job}/events",
            f"jobs/{job}/logs",
            "tokens",
            "health",
            f"{plane.url}/metrics",
        ):
            told[path] = api.get(path).raise_for_status().text
        for path, body in (
            ("jobs", {"kind": wrong, "name": wrong + "/", "spec": {wrong: wrong}}),
            ("tokens", {"name": wrong + "/", "scope": wrong}),
            ("architectures", {"document": {"stem_ratio": wrong}}),
            (f"attempts/fasterseg-{job}-1/redeem", {"ticket": wrong, "more": wrong}),
        ):
            refused = api.post(path, json=body)
            assert refused.status_code == 422
            told[f"{path} refused"] = refused.text
        told["refused token"] = api.get("jobs", headers={"Authorization": f"Bearer {wrong}"}).text
    told["log"] = plane.log.read_text()
    shown = json.loads(told["Ray's jobs"])[0]["runtime_env"]["env_vars"]

    assert "DEBUG" in told["log"]
    canaries = [TOKEN, made, wrong, ray.token, *secrets.values()]
    assert [place for place, text in told.items() for canary in canaries if canary in text] == []
    assert set(shown) == {"FASTERSEG_CONTROL_PLANE_URL", "FASTERSEG_SUBMISSION_ID", "FASTERSEG_TICKET"}
    assert shown["FASTERSEG_TICKET"] not in "".join(text for place, text in told.items() if place != "Ray's jobs")
    record_property("places looked at", len(told))
    check(service)
