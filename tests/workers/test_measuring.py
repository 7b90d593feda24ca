from typing import cast

import pytest

from fasterseg_core.config import ExportConfig
from services.client.attempt import AttemptClient
from services.profiler.device_lock import sole_use
from services.workers import measuring
from services.workers.job import Stopped
from services.workers.measuring import runner_alone
from tests.workers.fakes import FakeAttempt, a_job


def test_a_job_waits_for_another_measurement_until_it_is_cancelled(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "POLL_SECONDS", 0.01)
    attempt = FakeAttempt(stop_after=3)

    with (
        sole_use(tmp_path, "cpu", lambda: None),
        pytest.raises(Stopped),
        runner_alone(ExportConfig(), a_job(lock_dir=tmp_path), cast(AttemptClient, attempt)),
    ):
        pass

    assert {progress.phase for progress in attempt.told} == {"waiting for another measurement"}


def test_a_job_measures_at_once_where_no_other_does(tmp_path) -> None:
    attempt = FakeAttempt()

    with runner_alone(ExportConfig(), a_job(lock_dir=tmp_path), cast(AttemptClient, attempt)) as runner:
        assert runner.identity.address == "cpu"

    assert attempt.told == []
