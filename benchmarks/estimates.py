"""How fast a running service estimates latency: one architecture a request, and many in one.

    fasterseg up
    python -m benchmarks.estimates

Adds a table of the paper's space, computed from MACs, and asks for random networks: at the profiler itself, and at the
control plane, which is the one address that users know. The floor is the same estimates computed in this process. The
last line is one JSON object.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import httpx

from benchmarks.timing import percentiles, seconds_of, setting
from fasterseg_core.architecture import Architecture
from fasterseg_core.latency_table import estimate
from fasterseg_core.search_space import Resolution, SearchSpace
from services.profiler.random_networks import random_architectures
from tests.builders import a_latency_table

BATCH = 500


def main() -> None:
    """Prints a line for each address, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control-plane", default="http://127.0.0.1:8000/api/v1")
    parser.add_argument("--profiler", default="http://127.0.0.1:8001")
    parser.add_argument("--state", type=Path, default=Path(".fasterseg"), help="the service's, where its tokens are")
    parser.add_argument("--requests", type=int, default=1000, help="of one architecture each")
    parser.add_argument("--batches", type=int, default=10, help=f"of {BATCH} architectures each")
    arguments = parser.parse_args()
    space = SearchSpace()
    table = a_latency_table(space, Resolution(height=1024, width=2048), 19)
    architectures = random_architectures(space, BATCH)
    floor = BATCH / seconds_of(lambda: [estimate(architecture, table) for architecture in architectures])
    figures: dict[str, object] = {"floor_per_second": round(floor)}
    with _client(arguments.state / "api.token") as plane, _client(arguments.state / "profiler.token") as profiler:
        added = plane.post(f"{arguments.control_plane}/latency-tables", json={"document": table.to_document()})
        added.raise_for_status()
        places = {"profiler": (profiler, arguments.profiler), "control_plane": (plane, arguments.control_plane)}
        for name, (client, address) in places.items():
            url = f"{address}/latency-tables/{table.digest}/estimates"
            measured = _measured(client, url, architectures, arguments.requests, arguments.batches)
            figures |= {f"{name}_{key}": value for key, value in measured.items()}
            figures[f"{name}_floor_ratio"] = round(floor / measured["per_second"], 2)
            print(name, json.dumps(measured), flush=True)
    print(json.dumps(figures | {"setting": setting() | {"requests": arguments.requests, "batch": BATCH}}))


def _client(token_file: Path) -> httpx.Client:
    return httpx.Client(timeout=60, headers={"Authorization": f"Bearer {token_file.read_text()}"})


def _measured(
    client: httpx.Client, url: str, architectures: list[Architecture], requests: int, batches: int
) -> dict[str, float]:
    documents = [architecture.to_document() for architecture in architectures]

    def ask(some: list[object]) -> None:
        response = client.post(url, json={"architectures": some})
        response.raise_for_status()
        assert len(response.json()["items"]) == len(some)

    ask(list(documents))  # the table is read once
    singles = [seconds_of(lambda one=one: ask([documents[one % BATCH]])) for one in range(requests)]
    many = median(seconds_of(lambda: ask(list(documents))) for _ in range(batches))
    return percentiles(singles) | {"per_second": round(BATCH / many)}


if __name__ == "__main__":
    main()
