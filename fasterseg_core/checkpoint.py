"""Checkpoints: a plain nested state as one safetensors file, the tensors raw and everything else as JSON in its header.

Nothing in a file is ever executed, and one state always gives the same bytes. A file carries no digest of itself:
flipped bits load silently, so whoever stores one keeps its sha256.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

VERSION = 1  # of the format and of the states in it
_KEY = "fasterseg"  # the only entry of the header's metadata
_BEGINNING = f'{{"__metadata__":{{"{_KEY}":'.encode()  # of the header, after the 8 bytes of its length
_HEADER_BYTES = 100_000_000  # the format's limit


class CheckpointKind(StrEnum):
    """What a state is of."""

    SEARCH = "search"
    RETRAINING = "retraining"
    NETWORK = "network"
    MEASUREMENT = "measurement"  # the finished rows of a latency table, as its document


class CheckpointError(ValueError):
    """This is no whole checkpoint of the kind and version that was asked for; the message says what it is."""


def save(state: Mapping[str, object], kind: CheckpointKind, path: Path) -> None:
    """Writes a state of tensors, numbers, texts, None, lists, tuples and mappings whose keys are texts or integers.

    The file appears whole or not at all. Tensors on the CPU are written from where they are: no copy is made.

    Raises:
        TypeError: the state holds anything else; the message names its place.
    """
    tensors: dict[str, Tensor] = {}
    document = {"version": VERSION, "kind": kind.value, "state": _encoded(state, "", tensors, {})}
    header = json.dumps(document, allow_nan=False, separators=(",", ":"))
    assert len(header) < _HEADER_BYTES, "large values belong in tensors"
    save_file(tensors, path, metadata={_KEY: header})


def load(path: Path, kind: CheckpointKind) -> dict[str, object]:
    """The state of a file, on the CPU; tensors that were one are one again, mappings are dictionaries.

    Raises:
        CheckpointError: the file is foreign, truncated, of another kind or of another version.
    """
    try:
        file = safe_open(path, framework="pt", backend="pread")  # a mapped file would count as memory once more
    except SafetensorError as error:
        raise CheckpointError(_complaint(path, error)) from None
    with file:
        document = _document((file.metadata() or {}).get(_KEY), kind)
        tensors = {name: file.get_tensor(name).clone() for name in file.offset_keys()}  # aligned as torch aligns
    state = _decoded(document.get("state"), tensors)
    if not isinstance(state, dict):
        raise CheckpointError("a FasterSeg checkpoint, but what it holds is no state")
    return state


def pack(state: Mapping[str, object], kind: CheckpointKind) -> bytes:
    """What `save` writes, for states that are small."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        save(state, kind, path)
        return path.read_bytes()


def unpack(blob: bytes, kind: CheckpointKind) -> dict[str, object]:
    """What `load` reads."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(blob)
        file.flush()
        return load(Path(file.name), kind)


def _encoded(value: object, place: str, tensors: dict[str, Tensor], known: dict[object, str]) -> object:
    """A value as JSON; its tensors are added under their places, one that comes again under its first place."""
    match value:
        case Tensor():
            key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            name = known.setdefault(key, place)
            if name == place:
                if name in tensors:
                    raise TypeError(f"{place}: two values of the state have this place")
                tensors[name] = value.detach().contiguous()
            return {"tensor": name}
        case list():
            return [_encoded(item, f"{place}[{i}]", tensors, known) for i, item in enumerate(value)]
        case tuple():
            return {"tuple": [_encoded(item, f"{place}[{i}]", tensors, known) for i, item in enumerate(value)]}
        case Mapping():
            for key in value:
                if type(key) not in (str, int):
                    raise TypeError(f"{place or 'the state'}: the key {key!r} is neither a text nor an integer")
            inside = f"{place}/" if place else ""
            return {"dict": [[k, _encoded(item, f"{inside}{k}", tensors, known)] for k, item in value.items()]}
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
        return {"float": str(value)}
    if value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(f"{place or 'the state'}: a checkpoint cannot hold a value of type {type(value).__name__}")
    return value


def _decoded(value: object, tensors: Mapping[str, Tensor]) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_decoded(item, tensors) for item in value]
        case {"tuple": list(items)}:
            return tuple(_decoded(item, tensors) for item in items)
        case {"dict": list(pairs)}:
            return {key: _decoded(item, tensors) for key, item in pairs}
        case {"float": str(text)}:
            return float(text)
        case {"tensor": str(name)} if name in tensors:
            return tensors[name]
    raise CheckpointError("a FasterSeg checkpoint, but its header does not describe its tensors")


def _document(header: str | None, kind: CheckpointKind) -> dict[str, object]:
    if header is None:
        raise CheckpointError("not a FasterSeg checkpoint, but another file of the safetensors format")
    try:
        document: dict[str, object] = json.loads(header)
        version, held = document["version"], document["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"a FasterSeg checkpoint with a damaged header ({error})") from error
    if version != VERSION:
        raise CheckpointError(f"a checkpoint of version {version}; this program reads version {VERSION}")
    if held != kind:
        raise CheckpointError(f"a checkpoint of a {held}, not of a {kind}")
    return document


def _complaint(path: Path, error: SafetensorError) -> str:
    with path.open("rb") as file:
        ours = file.read(8 + len(_BEGINNING))[8:] == _BEGINNING
    reason = str(error).rpartition(": ")[2]
    return f"a FasterSeg checkpoint that is truncated or damaged ({reason})" if ours else "not a FasterSeg checkpoint"
