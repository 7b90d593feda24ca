import json
from dataclasses import replace

import pytest

from services.profiler.calibration import fit_calibration
from services.profiler.fidelity import report
from services.profiler.measured_networks import MeasuredNetworks
from tests.profiler.builders import networks


def test_calibration_networks_are_not_among_those_that_judge_it() -> None:
    measured = networks(1.2, 0.05, 0.7, noise=0.01)

    fidelity = report(MeasuredNetworks(tuple(measured)), 8)

    assert set(fidelity.held_out).isdisjoint(fidelity.fitted_on)
    assert {*fidelity.held_out, *fidelity.fitted_on} == set(measured)
    assert replace(fidelity.calibration, held_out=None) == fit_calibration(fidelity.fitted_on)
    assert fidelity.calibrated.networks == fidelity.sums.networks == fidelity.macs.networks == 4


def test_calibration_networks_lie_evenly_among_the_others() -> None:
    measured = networks(1.2, 0.05, 0.7)

    fidelity = report(MeasuredNetworks(tuple(measured)), 4)

    assert [measured.index(network) for network in fidelity.fitted_on] == [1, 4, 7, 10]


def test_a_correction_that_holds_removes_the_error_of_sums() -> None:
    measured = networks(1.2, 0.05, 0.7)

    fidelity = report(MeasuredNetworks(tuple(measured)), 5)

    assert fidelity.sums.bias < -0.15
    assert fidelity.calibrated.worst == pytest.approx(0, abs=1e-9)
    assert fidelity.calibrated_ms == pytest.approx(fidelity.measured_ms)


def test_the_document_has_every_held_out_network_with_its_three_latencies() -> None:
    measured = networks(1.2, 0.05, 0.7)

    fidelity = report(MeasuredNetworks(tuple(measured), {"b" * 64: "unstable"}), 5)

    document = json.loads(json.dumps(fidelity.to_document(), allow_nan=False))
    assert (len(document["networks"]), len(document["fitted_on"])) == (7, 5)
    assert document["networks"][0].keys() >= {"architecture", "predicted_ms", "calibrated_ms", "measured_ms"}
    assert document["errors"].keys() == {"sums", "calibrated", "macs"}
    assert document["calibration"]["held_out"] == document["errors"]["calibrated"]
    assert document["left_out"] == {"b" * 64: "unstable"}


def test_too_few_networks_are_refused_with_the_reasons_of_those_left_out() -> None:
    measured = networks(1.2, 0.05, 0.7)[:3]

    with pytest.raises(ValueError, match=r"two or more networks, not 0; left out: \{'b+': 'unstable'\}"):
        report(MeasuredNetworks(tuple(measured), {"b" * 64: "unstable"}), 3)
