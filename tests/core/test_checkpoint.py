import io
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from fasterseg_core import checkpoint
from fasterseg_core.checkpoint import CheckpointError, CheckpointKind, load, pack, save, unpack
from tests.rows import HOSTILE

SEARCH = CheckpointKind.SEARCH


def a_state():
    return {"weights": {"stem.0.weight": torch.arange(12.0).reshape(3, 4)}, "epoch": 2, "best": None}


def bits(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def round_trip(state):
    return unpack(pack(state, SEARCH), SEARCH)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text(alphabet="abc.", max_size=3) | st.integers(-3, 3)
STATES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=20,
)


@given(state=st.dictionaries(KEYS, STATES, max_size=3))
def test_plain_values_come_back_as_they_were(state):
    again = round_trip(state)

    assert again == state
    assert repr(again) == repr(state)  # 1 is not 1.0 or True, a tuple is not a list


def test_numbers_that_json_lacks_come_back():
    again = round_trip({"loss": math.nan, "best": math.inf, "worst": -math.inf})

    assert math.isnan(again["loss"])
    assert (again["best"], again["worst"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(3, 2).t(),
        torch.randn(4, 4)[1:, 2],
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.Generator().manual_seed(3).get_state(),
        torch.tensor(7),
        torch.randn(3, dtype=torch.bfloat16),
        torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
        nn.Parameter(torch.randn(2)),
    ],
    ids=lambda t: f"{t.dtype} {tuple(t.shape)} {t.stride()}",
)
def test_a_tensor_comes_back_bit_for_bit(tensor):
    again = round_trip({"value": tensor})["value"]

    assert (again.dtype, again.shape, again.requires_grad) == (tensor.dtype, tensor.shape, False)
    assert bits(again) == bits(tensor.detach())


def test_a_tensor_that_comes_twice_is_kept_once_and_comes_back_as_one():
    weight = torch.randn(1000)

    blob = pack({"a": weight, "b": [weight]}, SEARCH)
    again = unpack(blob, SEARCH)

    assert len(blob) < 5000
    assert again["a"] is again["b"][0]


def test_what_was_loaded_can_be_saved_again():
    blob = pack(a_state(), SEARCH)

    assert pack(unpack(blob, SEARCH), SEARCH) == blob


@pytest.mark.parametrize("algorithm", ["sgd", "adam"])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(algorithm):
    def trained(steps, state=None):
        weight = nn.Parameter(torch.linspace(-1, 1, 5))
        optimizer = (
            torch.optim.SGD([weight], lr=0.1, momentum=0.9)
            if algorithm == "sgd"
            else torch.optim.Adam([weight], lr=0.1)
        )
        if state is not None:
            weight.data.copy_(state["weight"])
            optimizer.load_state_dict(state["optimizer"])
        for _ in range(steps):
            optimizer.zero_grad()
            weight.sin().sum().backward()
            optimizer.step()
        return {"weight": weight, "optimizer": optimizer.state_dict()}

    resumed = trained(2, round_trip(trained(3)))

    assert pack(resumed, SEARCH) == pack(trained(5), SEARCH)


def test_one_state_gives_the_same_bytes():
    assert pack(a_state(), SEARCH) == pack(a_state(), SEARCH)


# ---- what cannot be kept ----


class Thing:
    pass


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [0, Thing()]}}, r"a/b\[1\]: a checkpoint cannot hold a value of type Thing"),
        ({"a": ({1, 2},)}, r"a\[0\]: a checkpoint cannot hold a value of type set"),
        ({"a": b"bytes"}, "a: a checkpoint cannot hold a value of type bytes"),
        ({"kind": SEARCH}, "kind: a checkpoint cannot hold a value of type CheckpointKind"),
        ({"a": {(1, 2): 3}}, r"a: the key \(1, 2\) is neither a text nor an integer"),
        ({True: 3}, "the state: the key True is neither"),
        ({"a": {"b": torch.ones(1)}, "a/b": torch.zeros(1)}, "a/b: two values of the state have this place"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_place(state, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        pack(state, SEARCH)


def test_a_state_that_is_refused_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        save({"a": Thing()}, SEARCH, tmp_path / "state")

    assert list(tmp_path.iterdir()) == []


# ---- what is no checkpoint ----


def pickled(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@HOSTILE
@pytest.mark.parametrize(
    "foreign",
    [b"", b"short", b"a text file, long enough to have a header", pickled({"a": 1}), (1 << 60).to_bytes(8, "little")],
    ids=["empty", "short", "text", "pickle", "a header of 2**60 bytes"],
)
def test_a_foreign_file_is_refused(foreign):
    with pytest.raises(CheckpointError, match="^not a FasterSeg checkpoint$"):
        unpack(foreign, SEARCH)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_others_are_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "weights", metadata)

    with pytest.raises(CheckpointError, match="another file of the safetensors format"):
        load(tmp_path / "weights", SEARCH)


BLOB = pack(a_state(), SEARCH)


@pytest.mark.parametrize("length", [40, 60, len(BLOB) // 2, len(BLOB) - 1])
def test_a_truncated_checkpoint_is_refused(length):
    with pytest.raises(CheckpointError, match="a FasterSeg checkpoint that is truncated or damaged"):
        unpack(BLOB[:length], SEARCH)


def test_a_checkpoint_with_bytes_added_is_refused():
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        unpack(BLOB + b"\0", SEARCH)


@HOSTILE
def test_every_truncation_is_refused():
    for length in range(len(BLOB)):
        with pytest.raises(CheckpointError):
            unpack(BLOB[:length], SEARCH)


def test_a_checkpoint_of_another_kind_is_refused():
    with pytest.raises(CheckpointError, match="^a checkpoint of a retraining, not of a search$"):
        unpack(pack(a_state(), CheckpointKind.RETRAINING), SEARCH)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    header = json.dumps({"version": checkpoint.VERSION + 1, "kind": "search", "state": {"dict": []}})
    save_file({}, tmp_path / "state", {"fasterseg": header})

    with pytest.raises(CheckpointError, match="^a checkpoint of version 2; this program reads version 1$"):
        load(tmp_path / "state", SEARCH)


@pytest.mark.parametrize("state", [{"tensor": "missing"}, {"code": "print()"}, 3], ids=["missing", "unknown", "number"])
def test_a_header_that_describes_something_else_is_refused(tmp_path, state):
    header = json.dumps({"version": checkpoint.VERSION, "kind": "search", "state": state})
    save_file({}, tmp_path / "state", {"fasterseg": header})

    with pytest.raises(CheckpointError, match="a FasterSeg checkpoint, but"):
        load(tmp_path / "state", SEARCH)


def test_a_flipped_bit_in_the_header_is_refused_or_changes_nothing_of_the_format():
    data = pack({"weight": torch.ones(3), "epoch": 1}, CheckpointKind.SEARCH)
    length = 8 + int.from_bytes(data[:8], "little")

    for place in range(8, length):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            unpack(damaged, CheckpointKind.SEARCH)
        except CheckpointError:
            continue
