"""The scrape configuration names what docker-compose.yml starts: nothing here can run it."""

from pathlib import Path

import yaml

from tests.deploy.compose import SERVICES

FILE = Path(__file__).parent.parent.parent / "deploy/prometheus/prometheus.yml"
SCRAPES = {scrape["job_name"]: scrape for scrape in yaml.safe_load(FILE.read_text())["scrape_configs"]}


def aliases() -> set[str]:
    """The names under which services reach each other."""
    networks = [service.get("networks") for service in SERVICES.values()]
    given = {alias for network in networks if isinstance(network, dict) for alias in network["inside"]["aliases"]}
    return given | SERVICES.keys()


def test_every_target_is_a_service() -> None:
    targets = [
        target
        for scrape in SCRAPES.values()
        for group in scrape.get("static_configs", ())
        for target in group["targets"]
    ]
    hosts = {target.split(":")[0] for target in targets} | set(SCRAPES["ray"]["dns_sd_configs"][0]["names"])

    assert hosts
    assert hosts <= aliases()


def test_every_ray_node_exports_its_metrics_where_they_are_scraped() -> None:
    option = f"--metrics-export-port={SCRAPES['ray']['dns_sd_configs'][0]['port']}"
    starts = [" ".join(service["command"]) for service in SERVICES.values() if "ray" in str(service.get("command"))]

    assert len(starts) == 4
    assert [start for start in starts if option not in start] == []


def test_what_asks_for_a_token_is_shown_one_from_a_file() -> None:
    assert [name for name, scrape in SCRAPES.items() if "authorization" in scrape] == ["control-plane", "profiler"]
    assert all(list(SCRAPES[name]["authorization"]) == ["credentials_file"] for name in ("control-plane", "profiler"))
