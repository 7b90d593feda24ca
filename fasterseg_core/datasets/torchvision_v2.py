"""torchvision's v2 transforms, importable beside any build of torch; the only module that imports torchvision.

The torchvision wheel of the package index is built against CUDA. Beside the CPU build of torch its C extension cannot
be loaded, and importing torchvision fails, because it describes two box operators (nms) that only the extension has.
Nothing here uses them; declaring their signatures is enough for the import. An extension that loads is left alone.
"""

from importlib.util import find_spec
from pathlib import Path

import torch


def _loads_extension() -> bool:
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed")
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


if not _loads_extension():
    # Kept alive by the module: torch forgets the declarations with this object.
    _declarations = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        _declarations.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]

from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402

__all__ = ["functional", "tv_tensors", "v2"]
