"""A Ray head that lets in everyone, one that asks for another token, and one whose token is changed."""

import httpx
import pytest

from tests.faults.invariants import check
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
    wait_for(lambda: said_of_ray(service) != "ok", "the token is wrong")
    assert said_of_ray(service).startswith(f"Ray at {ray.url} refused: Authentication failed")
    assert "FASTERSEG_RAY_TOKEN_PATH" in said_of_ray(service)
    job = service.submit()
    (service.folder / "ray.token").write_text(ray.token)
    record_property("seconds to a rotated token", wait_for(lambda: said_of_ray(service) == "ok", "it is let in"))
    service.succeeded(job)
    check(service)
