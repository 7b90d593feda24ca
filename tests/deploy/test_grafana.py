"""The dashboard asks for what our processes export: no Grafana can be had here."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from services.client.client import FasterSegClient
from services.client.schemas import ProjectLimits
from services.control_plane.__main__ import open_parts
from services.control_plane.app import create_app
from services.control_plane.settings import Settings
from services.profiler.documents import Documents
from services.profiler.serve_app import create_app as create_profiler
from services.storage.database import migrate
from services.storage.projects import limit_project
from services.storage.tables import FIRST_PROJECT
from services.storage.tokens import keep_first_token
from services.workers.metrics import GAUGES
from tests.control_plane.builders import a_dispatcher
from tests.control_plane.fakes import FakeRay
from tests.storage.builders import a_job

DASHBOARD = json.loads((Path(__file__).parent.parent.parent / "deploy/grafana/fasterseg.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
FUNCTIONS = {"sum", "max", "min", "by", "rate", "increase", "histogram_quantile"}
OF_PROMETHEUS = {"job", "instance"}  # labels of what it scrapes
TOKEN = "a token of sixteen letters or more"

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """Every metric, as Prometheus reads it, with its labels."""
    labels: Labels = defaultdict(set)
    for text in (_control_planes(tmp_path_factory.mktemp("state")), _profilers()):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels[sample.name] |= sample.labels.keys() | OF_PROMETHEUS
    for name in GAUGES:  # their own label `job` Prometheus calls exported_job
        labels[f"ray_fasterseg_worker_{name}"] = {"exported_job", "kind"} | OF_PROMETHEUS
    labels["up"] = OF_PROMETHEUS
    return labels


def _control_planes(folder: Path) -> str:
    settings = Settings(state_folder=folder, profiler_token=TOKEN)
    parts = replace(open_parts(settings), ray=FakeRay())
    migrate(parts.database)
    with parts.database.writing.begin() as session:
        keep_first_token(session, TOKEN)
    app = create_app(parts)
    a_job(parts.database)
    with parts.database.writing.begin() as session:
        limit_project(session, FIRST_PROJECT, ProjectLimits(max_hours=1.0))
    a_dispatcher(parts, registry=app.state.registry).tick()
    text = _read_twice(TestClient(app))
    parts.database.engine.dispose()
    return text


def _profilers() -> str:
    with FasterSegClient("http://localhost", token=TOKEN) as client:
        return _read_twice(TestClient(create_profiler(Documents(client), TOKEN)))


def _read_twice(client: TestClient) -> str:
    """What is exported after a request."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client.get("/metrics", headers=headers)
    return client.get("/metrics", headers=headers).text


def words(query: str) -> Iterator[str]:
    """What a query names, but for its labels."""
    without_labels = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\[[^]]*\]", "", query)
    yield from re.findall(r"[a-z_]\w*", without_labels)


def chosen_by(query: str) -> set[str]:
    """The labels whose values a query names."""
    return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))


def kept_by(query: str) -> list[set[str]]:
    """The labels that each of a query's sums keeps, the outermost first."""
    return [set(names.split(", ")) for names in re.findall(r"by \(([^)]*)\)", query)]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_a_metric_that_is_exported_by_labels_that_it_has(query: str, exported: Labels) -> None:
    metrics = set(words(query)) - FUNCTIONS

    assert metrics
    assert metrics - exported.keys() == set()
    assert chosen_by(query).union(*kept_by(query)) - set.union(*(exported[name] for name in metrics)) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_legend_names_labels_that_its_query_keeps(panel: dict) -> None:
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= [*kept_by(target["expr"]), OF_PROMETHEUS][0]


def test_panels_have_places_of_their_own() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]

    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(set(places)) == len(DASHBOARD["panels"])


def test_every_panel_asks_the_prometheus_that_is_chosen() -> None:
    (variable,) = DASHBOARD["templating"]["list"]

    assert {panel["datasource"]["uid"] for panel in PANELS} == {f"${{{variable['name']}}}"}
