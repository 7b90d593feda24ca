"""A Ray head that lets in everyone, one that asks for another token, and one whose token is changed."""

import secrets
from pathlib import Path

import httpx
import pytest

from tests.faults.counting_worker import Plan
from tests.faults.invariants import check
from tests.faults.ray_head import MACHINE, a_ray_head, service_on_ray
from tests.faults.ray_stand_in import RayStandIn
from tests.faults.service import Service, wait_for

ROW_20 = pytest.mark.row(20, "an open Ray head, a wrong token: refused and said clearly; rotated: no restart")


def said_of_ray(service: Service) -> str:
    """How the control plane says that Ray is."""
    answer = httpx.get(f"{service.planes[0].url}/api/v1/health", timeout=60)
    return str(answer.json()["ray"])


@ROW_20
def test_a_head_that_lets_in_everyone_is_given_nothing(service: Service, ray: RayStandIn):
    token, ray.token = ray.token, None
    service.start()
    job = service.submit()

    wait_for(lambda: "lets in everyone" in said_of_ray(service), "it is refused")
    said = said_of_ray(service)
    assert "lets in everyone, so nothing is started there: start it with RAY_AUTH_MODE=token" in said
    assert "FASTERSEG_RAY_TOKEN_PATH" in said
    assert ray.processes == {}

    ray.token = token
    service.succeeded(job)
    check(service)


@ROW_20
def test_a_wrong_token_is_named_and_a_rotated_one_needs_no_restart(service: Service, ray: RayStandIn, record_property):
    service.start()
    service.succeeded(service.submit())

    ray.token = "what it was started with later"
    refusal = f"Ray at {ray.url} refused: Authentication failed"
    wait_for(lambda: said_of_ray(service).startswith(refusal), "the token is wrong")
    assert "FASTERSEG_RAY_TOKEN_PATH" in said_of_ray(service)
    job = service.submit()
    (service.folder / "ray.token").write_text(ray.token)
    record_property("seconds to a rotated token", wait_for(lambda: said_of_ray(service) == "ok", "it is let in"))
    service.succeeded(job)
    check(service)


@pytest.mark.fault
@pytest.mark.timeout(900)
@ROW_20
def test_a_real_head_is_given_a_job_once_it_asks_for_a_token_of_any_day(tmp_path: Path, record_property):
    with a_ray_head(tmp_path) as head, service_on_ray(tmp_path, head) as service:
        head.start(RAY_AUTH_MODE="disabled")
        plane = service.start()
        service.plan(Plan(epochs=1))
        job = service.submit()
        wait_for(lambda: "lets in everyone" in plane.log.read_text(), "the head is refused")
        assert head.running() == set()
        head.kill(MACHINE)

        head.token_file.write_text(secrets.token_hex(32))
        head.start()
        record_property(
            "seconds from a real head's return to an attempt",
            wait_for(lambda: service.job(job).epoch == 1, "it starts"),
        )

        service.succeeded(job, 300)
        check(service)
