from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import onnx
import pytest

from fasterseg_core.config import DatasetName, Engine, ExportConfig, NetworkOutput, ProfileConfig
from fasterseg_core.latency_table import LatencyTable, estimate
from fasterseg_core.network import SegmentationNetwork, save_network
from fasterseg_core.operator_specs import architecture_specs
from services.client.attempt import AttemptClient
from services.client.attempt_schemas import ResolvedInputs
from services.client.schemas import JobKind, JsonObject
from services.profiler.engines import open_runner
from services.profiler.table_builder import fingerprint
from services.workers.export import Prediction, run
from services.workers.outputs import json_object
from tests.builders import a_latency_row, a_resolution, an_architecture
from tests.profiler.fake_runner import FakeRunner
from tests.workers.fakes import FakeAttempt, a_job

NETWORK, TABLE = "a" * 64, "b" * 64
ARCHITECTURE = an_architecture()
CONFIG = ExportConfig(resolution=a_resolution(), passes=1, samples=1, accept_noise=True)
CALIBRATION: JsonObject = {"slope": 2.0, "operator_ms": 0.5, "fixed_ms": 1.0, "fitted_on": [], "held_out": None}


def a_table(num_classes: int = 11, **changes: object) -> LatencyTable:
    """One that this machine's ONNX Runtime could have measured, with a millisecond for everything."""
    profile = ProfileConfig(resolution=CONFIG.resolution, dataset=DatasetName.CAMVID)
    of_here = fingerprint(profile, open_runner(Engine.ONNXRUNTIME))
    specs = architecture_specs(ARCHITECTURE, CONFIG.resolution, num_classes)
    return LatencyTable(of_here, {spec: a_latency_row(1.0) for _, spec in specs})


def exported(attempt: FakeAttempt, latency_table: str | None = None, config: ExportConfig = CONFIG) -> JsonObject:
    with TemporaryDirectory() as locks:
        job = a_job(
            kind=JobKind.EXPORT,
            spec=json_object(config),
            inputs=ResolvedInputs(network=NETWORK, latency_table=latency_table),
            lock_dir=Path(locks),
        )
        run(job, cast(AttemptClient, attempt))
    assert attempt.success is not None
    return attempt.success.result


def output_shape(model: bytes) -> list[int]:
    (output,) = onnx.load_from_string(model).graph.output
    return [dimension.dim_value for dimension in output.type.tensor_type.shape.dim]


def an_attempt(**given: dict[str, JsonObject]) -> FakeAttempt:
    network = save_network(SegmentationNetwork(ARCHITECTURE, 11))
    return FakeAttempt(blobs={NETWORK: network}, **given)


def test_an_export_is_onnx_that_computes_what_torch_does() -> None:
    attempt = an_attempt()

    result = exported(attempt)

    (model,) = attempt.uploaded.values()
    onnx.checker.check_model(onnx.load_from_string(model))
    assert float(str(result["max_difference"])) < 1e-4
    assert float(str(result["host_ms"])) > 0
    assert "verdict" not in result


def test_the_same_network_gives_the_same_onnx() -> None:
    network = save_network(SegmentationNetwork(ARCHITECTURE, 11))
    attempts = [FakeAttempt(blobs={NETWORK: network}) for _ in range(2)]

    for attempt in attempts:
        exported(attempt)

    assert attempts[0].uploaded == attempts[1].uploaded


def test_what_the_engine_built_is_kept_beside_the_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.workers.measuring.open_runner", lambda *_: FakeRunner())
    attempt = an_attempt()

    exported(attempt)

    assert attempt.success is not None
    assert [artifact.name for artifact in attempt.success.artifacts] == ["network.onnx", "network.plan"]
    assert b"DeployedNetwork" in attempt.uploaded.values()


def test_a_calibrated_table_predicts_the_corrected_sum() -> None:
    table = a_table()
    latency = estimate(ARCHITECTURE, table)
    attempt = an_attempt(latency_tables={TABLE: json_object(table.to_document())}, calibrations={TABLE: CALIBRATION})

    result = exported(attempt, TABLE)

    assert result["sum_ms"] == latency.milliseconds
    assert result["predicted_ms"] == 2 * latency.milliseconds + 0.5 * latency.num_executed + 1


def test_a_machine_that_is_not_as_fast_as_the_tables_is_not_judged_on() -> None:
    attempt = an_attempt(latency_tables={TABLE: json_object(a_table().to_document())})

    result = exported(attempt, TABLE)

    assert float(str(result["slowdown"])) < 0.5  # a millisecond for everything is slow
    assert result["verdict"] == "the machine is not as fast as when the table was measured"


def test_a_table_without_a_calibration_predicts_the_sum() -> None:
    table = a_table()

    result = exported(an_attempt(latency_tables={TABLE: json_object(table.to_document())}), TABLE)

    assert result["predicted_ms"] == result["sum_ms"] == estimate(ARCHITECTURE, table).milliseconds


def test_coarse_logits_are_predicted_without_the_upsampling() -> None:
    table = a_table()
    attempt = an_attempt(latency_tables={TABLE: json_object(table.to_document())})

    result = exported(attempt, TABLE, replace(CONFIG, output=NetworkOutput.COARSE_LOGITS))

    (model,) = attempt.uploaded.values()
    assert output_shape(model) == [1, 11, 8, 12]
    assert result["predicted_ms"] == estimate(ARCHITECTURE, table).milliseconds - 1
    assert "verdict" in result


def test_labels_are_exported_checked_and_not_judged() -> None:
    attempt = an_attempt(latency_tables={TABLE: json_object(a_table().to_document())})

    result = exported(attempt, TABLE, replace(CONFIG, output=NetworkOutput.LABELS))

    (model,) = attempt.uploaded.values()
    assert output_shape(model) == [1, 64, 96]
    assert float(str(result["differing_pixels"])) < 1e-3
    assert "predicted_ms" in result
    assert "verdict" not in result


@pytest.mark.parametrize(
    ("measured_ms", "slowdown", "verdict"),
    [
        (10.4, 1.0, "as predicted"),
        (9.6, 1.0, "as predicted"),
        (10.6, 1.0, "slower than predicted"),
        (9.4, 1.0, "faster than predicted"),
        (11.0, 1.1, "as predicted"),
        (10.0, 1.1, "faster than predicted"),
        (20.0, 2.0, "the machine is not as fast as when the table was measured"),
        (5.0, 0.5, "the machine is not as fast as when the table was measured"),
    ],
)
def test_a_verdict_allows_the_error_that_predictions_have(measured_ms: float, slowdown: float, verdict: str) -> None:
    prediction = Prediction(sum_ms=8.0, predicted_ms=10.0, tolerance=0.05)

    judged = prediction.judged(measured_ms, slowdown, NetworkOutput.LOGITS)

    assert (judged["verdict"], judged["slowdown"]) == (verdict, slowdown)
    assert judged["difference"] == pytest.approx(measured_ms / slowdown / 10 - 1)
