import subprocess
import sys

import pytest
import torch

from fasterseg_core.latency_table import MissingLatencyError
from fasterseg_core.reports import CollapsedError, DivergedError
from services.client.schemas import FailureClass
from services.profiler.errors import EngineUnavailableError
from services.workers.execution import reason_for


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ValueError("num_layers is 2"), FailureClass.USER_ERROR),
        (DivergedError("search epoch 2, step 7: the loss is not finite"), FailureClass.USER_ERROR),
        (CollapsedError("search epoch 3: the student is collapsing"), FailureClass.USER_ERROR),
        (MissingLatencyError("conv at 1/8"), FailureClass.USER_ERROR),
        (EngineUnavailableError("install tensorrt"), FailureClass.USER_ERROR),
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("shapes differ"), FailureClass.INFRASTRUCTURE),
        (OSError("disk full"), FailureClass.INFRASTRUCTURE),
    ],
)
def test_an_error_says_who_has_to_act(error: Exception, failure: FailureClass) -> None:
    assert reason_for(error).failure is failure


def test_a_user_is_told_the_message_alone() -> None:
    assert reason_for(ValueError("epochs is 0; it must be positive")).message == "epochs is 0; it must be positive"


def test_an_error_without_a_message_is_told_by_its_kind() -> None:
    assert reason_for(ValueError()).message == "ValueError"


def test_an_operator_is_told_the_kind_of_error() -> None:
    assert reason_for(OSError("disk full")).message == "OSError: disk full"


def test_a_long_message_is_cut_to_what_the_contract_allows() -> None:
    assert len(reason_for(RuntimeError("x" * 10_000)).message) == 4000


def test_a_profile_job_begins_without_what_draws_and_records_the_others() -> None:
    begins = "import services.workers.execution, services.workers.profile, sys"
    finds = "print({'matplotlib', 'tensorboard'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", f"{begins}; {finds}"], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
