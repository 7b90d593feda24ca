"""The files that the authors of FasterSeg published, as values of this project; no file's code is ever run.

`arch_<n>.pt` holds alpha, beta and gamma of a search; the latency table is an `.npy` file of one pickled dict. Both are
pickles: they are read by unpicklers that know a handful of harmless names and refuse a file for any other.
"""

import io
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor

from fasterseg_core.config import Role
from fasterseg_core.latency_table import Fingerprint, LatencyRow, LatencyTable
from fasterseg_core.operator_specs import OperatorSpec, Structure, space_specs, stem_spec
from fasterseg_core.relaxation import Relaxation
from fasterseg_core.search_space import DOWNSAMPLE_RATES, OPERATORS, Operator, Resolution, SearchSpace

# The columns of a published alpha.
PUBLISHED_OPERATORS = (
    Operator.SKIP,
    Operator.CONV,
    Operator.ZOOMED_CONV,
    Operator.CONV_X2,
    Operator.ZOOMED_CONV_X2,
)

PUBLISHED_KEY = re.compile(
    r"(?P<name>\w+?)_H(?P<height>\d+)_W(?P<width>\d+)_(C(?P<c>\d+)|Cin(?P<c_in>\d+)_Cout(?P<c_out>\d+))"
    r"(_kernel(?P<kernel>\d+))?(_stride(?P<stride>\d+))?(_dilation1)?"
)
PUBLISHED_CELLS = {
    "FactorizedReduce": Operator.SKIP,
    "BasicResidual1x": Operator.CONV,
    "BasicResidual2x": Operator.CONV_X2,
    "BasicResidual_downup_1x": Operator.ZOOMED_CONV,
    "BasicResidual_downup_2x": Operator.ZOOMED_CONV_X2,
}
LARGEST_EQUAL_PREDICTION = 256  # channels; the published prediction halves what is wider
UNPRICED = (Structure.UPSAMPLE, Structure.CONCAT)  # what the published estimate leaves out

# What rebuilds an array and a number from a pickle.
_RECONSTRUCT, _SCALAR = (cast(Callable[..., object], value.__reduce__()[0]) for value in (np.empty(0), np.float64()))


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self) -> bytes: ...


# ---- alpha, beta, gamma ----


def read_relaxation(path: Path) -> Relaxation:
    """The searched scalars of an `arch_<n>.pt`: a teacher's where every width vector has length 1, else a student's.

    Raises:
        ValueError: no such file format, a pickle that names anything but tensors and numbers, or scalars of other
            shapes than those of a lattice with the paper's ratios; the message says which.
    """
    tensors = _tensors(path)
    index = next((name.split("_")[1] for name in tensors if re.fullmatch(r"alpha_\d+_0", name)), None)
    if index is None:
        raise ValueError(f"{path.name}: no alpha_<n>_0 among its {len(tensors)} tensors")
    wanted = {f"{kind}_{index}_{scale}" for kind in ("alpha", "ratio") for scale in range(3)}
    wanted |= {f"beta_{index}_{scale}" for scale in (1, 2)}
    if missing := sorted(wanted - tensors.keys()):
        raise ValueError(f"{path.name}: lacks {', '.join(missing)}")
    widths = {tensors[f"ratio_{index}_{scale}"].shape[-1:] for scale in range(3)}
    space = SearchSpace(num_layers=len(tensors[f"alpha_{index}_0"]))
    relaxation = Relaxation(space, Role.TEACHER if widths == {(1,)} else Role.STUDENT)
    columns = [PUBLISHED_OPERATORS.index(operator) for operator in OPERATORS]
    with torch.no_grad():
        for name, logits in relaxation.named_parameters():
            kind, rate = name.split(".")
            scale = DOWNSAMPLE_RATES.index(int(rate))
            published = tensors[f"{'ratio' if kind == 'gamma' else kind}_{index}_{scale}"]
            if published.shape != logits.shape:
                raise ValueError(
                    f"{path.name}: {kind} at s = {rate} is {tuple(published.shape)}, "
                    f"a {relaxation.role} of {space.num_layers} layers has {tuple(logits.shape)}"
                )
            if not published.isfinite().all():
                raise ValueError(f"{path.name}: {kind} at s = {rate} is not finite")
            logits.copy_(published[:, columns] if kind == "alpha" else published)
    return relaxation


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file by name; numbers beside them, such as mIoU02, are left out."""
    harmless: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
        (_SCALAR, "numpy.core.multiarray.scalar"),  # as older versions of numpy wrote it
        (_SCALAR, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{path.name} is refused: it is compressed, which no file of torch.save is")
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch's unpickler raises whatever a foreign file leads it to
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {named[1]}, which is neither a tensor nor a number" if named else "not a file of torch.save"
        raise ValueError(f"{path.name} is refused: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: holds a {type(content).__name__}, not a dict of alpha, beta and ratio")
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


# ---- the latency table ----


@dataclass(frozen=True)
class PublishedTable:
    """A table in this project's form; `left_out` says of every published key without a row of its own why not."""

    table: LatencyTable
    left_out: Mapping[str, str]


def read_latency_table(path: Path, *, device: str = "GTX 1080 Ti") -> PublishedTable:
    """A table that the published code wrote, 667 entries in the authors' own.

    A stem has no entry: its row is the sum of its three. Upsampling and concatenation have none either, and get no
    row; `with_free_resizing` prices them as the published estimate does.

    Raises:
        ValueError: no such file format, a pickle that names anything but arrays and numbers, or a negative latency.
    """
    entries = _entries(path)
    specs = {key: _spec(key) for key in entries}
    images = {(spec.height, spec.width) for spec in specs.values() if spec is not None and spec.c_in == 3}
    classes = {spec.c_out for spec in specs.values() if spec is not None and spec.operator is Structure.PREDICTION}
    if len(images) != 1 or len(classes) != 1:
        raise ValueError(
            f"{path.name}: one resolution and one number of classes are wanted, not {images} and {classes}"
        )
    (height, width), num_classes = images.pop(), classes.pop()
    rows, left_out = {}, {}
    for key in sorted(entries, key=lambda key: not key.startswith("ConvNorm")):  # these first
        spec = specs[key]
        if spec is None:
            wide = "its prediction halves the width, ours never does"
            left_out[key] = wide if key.startswith("head") else "no operator of this project"
        elif spec in rows:
            left_out[key] = f"{spec.key} measured again; the head's own measurement is kept"
        else:
            rows[spec] = _row(entries[key])
    resolution = Resolution(height=height, width=width)
    rows |= _stems(rows, resolution)
    fingerprint = Fingerprint(
        engine="tensorrt",
        engine_version="as published",
        device=device,
        driver="as published",
        threads=1,
        precision="fp32",
        protocol="published lookup table: one figure an operator, stride-1 skips timed as identities",
        resolution=resolution,
        num_classes=num_classes,
        interpolation="nearest",
    )
    return PublishedTable(LatencyTable(fingerprint, rows), left_out)


def with_free_resizing(table: LatencyTable, space: SearchSpace) -> LatencyTable:
    """The table with 0 ms for each upsampling and concatenation of the space that it lacks, its protocol saying so.

    The published estimate leaves them out; only with them does a table cover a space, as a search needs.
    """
    fingerprint = table.fingerprint
    specs = table.missing(space_specs(space, fingerprint.resolution, fingerprint.num_classes))
    free = {
        spec: LatencyRow(milliseconds=0, lower_quartile=0, upper_quartile=0, samples=0, reason="left out, as published")
        for spec in specs
        if spec.operator in UNPRICED
    }
    described = Fingerprint(
        **{**vars(fingerprint), "protocol": f"{fingerprint.protocol}; upsampling and concatenation count nothing"}
    )
    return LatencyTable(described, {**table.rows, **free})


class _DictOfNumbers(pickle.Unpickler):
    """Reads one pickled array that holds a dict of numbers."""

    def find_class(self, module: str, name: str) -> object:
        harmless: dict[tuple[str, str], object] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin_1,
            **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
            **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
        }
        if (module, name) not in harmless:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither an array nor a number")
        return harmless[module, name]


def _latin_1(text: str, encoding: str) -> bytes:
    """How Python 2 and 3 share bytes in a pickle."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it names the encoding {encoding}")
    return text.encode("latin1")


def _entries(path: Path) -> dict[str, float]:
    """The dict of an `.npy` file."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, _, dtype = _header(file, version)
            if shape != () or dtype != np.dtype(object):
                raise pickle.UnpicklingError(f"an array of {dtype} of shape {shape}, not one dict")
            content = _DictOfNumbers(io.BytesIO(file.read())).load()
        except Exception as error:  # an unpickler raises whatever a foreign file leads it to
            raise ValueError(f"{path.name} is refused: {error}") from error
    entries = content.item() if isinstance(content, np.ndarray) else content
    if not isinstance(entries, dict):
        raise ValueError(f"{path.name}: holds a {type(entries).__name__}, not a dict of latencies")
    for key, value in entries.items():
        if not isinstance(key, str) or not isinstance(value, float) or not 0 <= value < math.inf:
            raise ValueError(f"{path.name}: {key!r} is {value!r}, not milliseconds of an operator")
    return {key: float(value) for key, value in entries.items()}


def _header(file: _Reader, version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[np.generic]] = read(file)
    return header


def _spec(key: str) -> OperatorSpec | None:
    """The operator of a published key; None where this project has none."""
    match = PUBLISHED_KEY.fullmatch(key)
    if match is None:
        return None
    c_in, c_out = int(match["c_in"] or match["c"]), int(match["c_out"] or match["c"])
    operator: Operator | Structure
    match match["name"], match["kernel"]:
        case "ff", None:  # timed without the channel attention that its class still carries
            operator = Structure.POINTWISE
        case "head", None if c_in <= LARGEST_EQUAL_PREDICTION:
            operator = Structure.PREDICTION
        case "ConvNorm", "1":
            operator = Structure.POINTWISE
        case "ConvNorm", "3":
            operator = Operator.CONV
        case name, None if name in PUBLISHED_CELLS:
            operator = PUBLISHED_CELLS[name]
        case _:
            return None
    height, width, stride = int(match["height"]), int(match["width"]), int(match["stride"] or 1)
    return OperatorSpec(operator=operator, c_in=c_in, c_out=c_out, height=height, width=width, stride=stride)


def _stems(rows: Mapping[OperatorSpec, LatencyRow], resolution: Resolution) -> dict[OperatorSpec, LatencyRow]:
    """The rows of the stems whose three entries are there: a convolution and two pairs of them, each of stride 2."""
    stems = {}
    for first in [spec for spec in rows if spec.c_in == 3]:
        half, full = first.c_out, 2 * first.c_out
        pieces = [first]
        for c_in, rate in ((half, 2), (full, 4)):
            height, width = resolution.at(rate)
            pieces.append(
                OperatorSpec(operator=Operator.CONV_X2, c_in=c_in, c_out=full, height=height, width=width, stride=2)
            )
        if all(piece in rows for piece in pieces):
            total = sum(rows[piece].milliseconds for piece in pieces)
            stems[stem_spec(full // DOWNSAMPLE_RATES[0], resolution)] = _row(total)
    return stems


def _row(milliseconds: float) -> LatencyRow:
    return LatencyRow(milliseconds=milliseconds, lower_quartile=milliseconds, upper_quartile=milliseconds, samples=1)
