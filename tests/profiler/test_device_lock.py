import multiprocessing
from pathlib import Path

import pytest

from services.profiler.device_lock import sole_use

PROCESSES = multiprocessing.get_context("spawn")


class Waited(Exception):
    pass


def wait() -> None:
    raise Waited


def holding(folder: Path, held, released) -> None:
    with sole_use(folder, "cpu", wait):
        held.set()
        released.wait()


def test_one_process_at_a_time_uses_a_device(tmp_path) -> None:
    held, released = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=holding, args=(tmp_path, held, released))
    process.start()
    try:
        assert held.wait(60)
        with pytest.raises(Waited), sole_use(tmp_path, "cpu", wait):
            pass
        with sole_use(tmp_path, "0000:01:00.0", wait):
            pass  # another device
        process.kill()
        process.join()
        with sole_use(tmp_path, "cpu", wait):
            pass  # a lock ends with its process
    finally:
        process.kill()
        process.join()


def test_a_device_is_free_again_when_its_use_ends(tmp_path) -> None:
    for _ in range(2):
        with sole_use(tmp_path, "cpu", wait):
            pass
