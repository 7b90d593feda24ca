from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg_core.config import Engine, Precision
from services.profiler.timing_cache import cache_folder, read_timing_cache, write_timing_cache
from tests.profiler.fake_runner import FakeRunner

HERE = replace(FakeRunner.identity, engine=Engine.TENSORRT, precision=Precision.FP16)


def test_is_empty_at_first(tmp_path: Path) -> None:
    assert read_timing_cache(tmp_path / "none", HERE) == b""


def test_is_found_again_also_for_the_other_precision_and_another_gpu_of_the_kind(tmp_path: Path) -> None:
    write_timing_cache(tmp_path / "new", HERE, b"first")
    write_timing_cache(tmp_path / "new", HERE, b"second")

    assert read_timing_cache(tmp_path / "new", replace(HERE, precision=Precision.FP32, address="GPU-2")) == b"second"
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".cache"]


@pytest.mark.parametrize("changed", [{"driver": "590.0"}, {"engine_version": "11.4.0"}, {"device": "another GPU"}])
def test_is_not_taken_for_another_driver_version_or_device(tmp_path: Path, changed: dict[str, str]) -> None:
    write_timing_cache(tmp_path, HERE, b"cache")

    assert read_timing_cache(tmp_path, replace(HERE, **changed)) == b""


def test_lies_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")

    assert cache_folder() == Path("/caches/fasterseg")
