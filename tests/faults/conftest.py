"""Services of real processes to break, and the table of what was promised and measured at the end."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from services.storage.blob_store import BlobStore
from services.storage.folder_store import FolderStore
from tests.faults.clocks import COMPILER, Clock, a_clock
from tests.faults.control_plane import QUICK, Periods
from tests.faults.counting_worker import FOLDER
from tests.faults.processes import serve_forks
from tests.faults.ray_stand_in import RayStandIn, ray_stand_in
from tests.faults.service import Service
from tests.postgresql import Server, postgresql_binaries, postgresql_server
from tests.serving import TOKEN, environment

HASTE = {"DISPATCH_SECONDS": "0.1", "CANCEL_GRACE_SECONDS": "5"}
SEED = int(os.environ.get("FASTERSEG_FAULTS_SEED", secrets.randbits(32)))

MakeService = Callable[..., Service]


def pytest_report_header() -> str:
    return f"faults: FASTERSEG_FAULTS_SEED={SEED}"


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Chance that the printed seed and the test's name repeat."""
    print(f"FASTERSEG_FAULTS_SEED={SEED}")  # the header is not shown where tests run in several processes
    return Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture(scope="session")
def clock_of_processes(tmp_path_factory: pytest.TempPathFactory) -> Clock | None:
    """That of all control planes and workers; none that jumps where there is no C compiler."""
    if COMPILER is None:
        return None
    clock = a_clock(tmp_path_factory.mktemp("clock"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in clock.variables().items():
            patch.setenv(name, value)
        serve_forks()
    return clock


@pytest.fixture
def ray(tmp_path: Path, clock_of_processes: Clock | None) -> Iterator[RayStandIn]:
    with ray_stand_in({FOLDER: str(tmp_path)}) as ray:
        yield ray


@pytest.fixture
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of this test's own, which it may kill."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: initdb and pg_ctl were not found")
    with postgresql_server(binaries, fsync=True) as server:
        yield server


@pytest.fixture
def make_service(tmp_path: Path, ray: RayStandIn) -> Iterator[MakeService]:
    """Makes the service of a test, on SQLite and a folder unless it says otherwise."""
    with ExitStack() as opened:

        def make(periods: Periods = QUICK, store: BlobStore | None = None, **variables: str) -> Service:
            (tmp_path / "api.token").write_text(TOKEN)
            (tmp_path / "ray.token").write_text(str(ray.token))
            settings = {
                "DATABASE_URL": f"sqlite:///{tmp_path / 'fasterseg.db'}",
                "RAY_ADDRESS": ray.url,
                "RAY_TOKEN_PATH": str(tmp_path / "ray.token"),
                **HASTE,
                **variables,
            }
            service = Service(
                folder=tmp_path,
                environment=environment(tmp_path, **settings),
                ray=ray,
                store=store or FolderStore(tmp_path / "blobs"),
                periods=periods,
                database_url=settings["DATABASE_URL"],
            )
            opened.callback(service.close)
            return service

        yield make


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """A service on SQLite and a folder, none of whose control planes is up."""
    return make_service()


# ---- the table ------------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notes the row of every test that has one, in whichever folder it stands."""
    for item in items:
        if (marked := item.get_closest_marker("row")) is not None:
            item.user_properties.append(("row", marked.args))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[tuple[int, str], list[pytest.TestReport]] = {}
    for outcome in ("passed", "failed", "xfailed"):
        for report in terminalreporter.getreports(outcome):
            for row in (value for name, value in report.user_properties if name == "row"):
                rows.setdefault(row, []).append(report)
    if not rows:
        return
    table = [_summary(number, promised, reports) for (number, promised), reports in sorted(rows.items())]
    terminalreporter.section(f"faults, FASTERSEG_FAULTS_SEED={SEED}")
    columns = ("row", "promised", "measured", "runs", "violations")
    terminalreporter.line(f"| {' | '.join(columns)} |")
    terminalreporter.line("|---|---|---|---|---|")
    for line in table:
        terminalreporter.line(f"| {' | '.join(str(line[column]) for column in columns)} |")
    terminalreporter.line(json.dumps({"seed": SEED, "rows": table}))


def _summary(number: int, promised: str, reports: list[pytest.TestReport]) -> dict[str, object]:
    """One row: the worst of each measure over all its tests."""
    measures: dict[str, float] = {}
    noted = [item for report in reports for item in report.user_properties]
    for name, value in (item for item in noted if item[0] not in ("row", "runs")):
        measures[name] = max(measures.get(name, float("-inf")), float(str(value)))
    measured = ", ".join(f"{name} {value:.4g}" for name, value in sorted(measures.items()))
    runs = sum(int(str(dict(report.user_properties).get("runs", 1))) for report in reports)
    violations = sum(report.outcome != "passed" for report in reports)
    return {"row": number, "promised": promised, "measured": measured, "runs": runs, "violations": violations}
