"""Writes the networks that a user would otherwise take from pip as ONNX, for `benchmarks.inference`.

They need packages that this project does not, and another torch, so an environment of their own:

    python3.11 -m venv benchmark-out/peers-env
    benchmark-out/peers-env/bin/pip install torch==2.14.1 torchvision==0.29.1 segmentation-models-pytorch==0.6.0 onnx
    benchmark-out/peers-env/bin/python benchmarks/peer_networks.py benchmark-out/peers

Each gives logits of every pixel, with random weights: of what a network computes, only its time matters here.
"""

import argparse
import warnings
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import nn

NUM_CLASSES = 19
SIZES = ((360, 480), (512, 1024))
MULTIPLE = 32  # of height and width, which these networks need: a user pads
PEERS = {
    "deeplabv3plus_mobilenetv2": (smp.DeepLabV3Plus, "mobilenet_v2"),
    "linknet_resnet18": (smp.Linknet, "resnet18"),
    "fpn_resnet18": (smp.FPN, "resnet18"),
    "segformer_b0": (smp.Segformer, "mit_b0"),
}


def main() -> None:
    """Writes one file for each network and size, named after both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of the exporter, about itself
    for height, width in SIZES:
        padded = (-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE)
        for name, (network, encoder) in PEERS.items():
            model = network(encoder_name=encoder, encoder_weights=None, classes=NUM_CLASSES).eval()
            _export(model, padded, folder / f"{name}_{height}x{width}.onnx")


def _export(model: nn.Module, size: tuple[int, int], path: Path) -> None:
    image = torch.zeros(1, 3, *size)
    with torch.no_grad():
        assert model(image).shape == (1, NUM_CLASSES, *size)
        torch.onnx.export(
            model, (image,), path, dynamo=False, opset_version=18, input_names=["input"], output_names=["output"]
        )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{path.name}: {size[0]}x{size[1]}, {parameters / 1e6:.2f} M parameters", flush=True)


if __name__ == "__main__":
    main()
