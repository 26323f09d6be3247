"""Writes torch_logits.json, which test_networks.py compares with. It needs PyTorch, the tests do not.

The networks are torchvision's definitions (models/resnet.py, models/squeezenet.py) written down again with
PyTorch's functions and torchvision's parameter names. Every parameter is a fixed formula of its name and
shape, and so are the images. Run as `python tests/torch_reference.py` wherever torch is installed.
"""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("torch_logits.json")
CLASSES = 3
# Even and odd sizes meet different borders in strided convolutions and in ceil-mode pools.
SIZES = (32, 65, 224)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values in [-1, 1) from an integer hash of `name` and position: the same on every machine."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) * np.uint64(2654435761)
    x = x + np.uint64(zlib.crc32(name.encode()))
    for _ in range(2):
        x = (x ^ (x >> np.uint64(15))) * np.uint64(0x2C1B3C6D) & np.uint64(0xFFFFFFFF)
    return (x / 2.0**31 - 1).reshape(shape)


def parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of a torchvision parameter: `name` is its key in the state dict, `shape` torch's."""
    values = noise(name, shape)
    if name.endswith("running_var"):
        values = 1 + np.abs(values)
    elif len(shape) > 1:
        values = values * np.sqrt(6 / np.prod(shape[1:]))
    else:
        values = (1 if name.endswith("weight") else 0) + values / 5
    return values.astype(np.float32)


def images(size: int, channels: int) -> np.ndarray:
    """Two uint8 images, shape (2, size, size, channels)."""
    return np.round(127.5 * (1 + noise("image", (2, size, size, channels)))).clip(0, 255).astype(np.uint8)


def _tensor(name: str, *shape: int):
    import torch

    return torch.from_numpy(parameter(name, shape))


def _conv(f, x, name: str, filters: int, kernel: int, stride: int = 1, border: int = 0, bias: bool = True):
    weight = _tensor(f"{name}.weight", filters, x.shape[1], kernel, kernel)
    return f.conv2d(x, weight, _tensor(f"{name}.bias", filters) if bias else None, stride, border)


def _norm(f, x, name: str):
    kinds = ("running_mean", "running_var", "weight", "bias")
    return f.batch_norm(x, *(_tensor(f"{name}.{kind}", x.shape[1]) for kind in kinds), eps=1e-5)


def _block(f, x, name: str, filters: int, stride: int):
    y = _conv(f, x, f"{name}.conv1", filters, 3, stride, 1, bias=False)
    y = _conv(f, f.relu(_norm(f, y, f"{name}.bn1")), f"{name}.conv2", filters, 3, 1, 1, bias=False)
    if stride > 1:
        x = _conv(f, x, f"{name}.downsample.0", filters, 1, stride, bias=False)
        x = _norm(f, x, f"{name}.downsample.1")
    return f.relu(_norm(f, y, f"{name}.bn2") + x)


def resnet18(f, x):
    x = f.relu(_norm(f, _conv(f, x, "conv1", 64, 7, 2, 3, bias=False), "bn1"))
    x = f.max_pool2d(x, 3, 2, 1)
    for stage, filters in ((1, 64), (2, 128), (3, 256), (4, 512)):
        x = _block(f, x, f"layer{stage}.0", filters, 1 if stage == 1 else 2)
        x = _block(f, x, f"layer{stage}.1", filters, 1)
    x = f.adaptive_avg_pool2d(x, 1).flatten(1)
    return f.linear(x, _tensor("fc.weight", CLASSES, 512), _tensor("fc.bias", CLASSES))


def squeezenet1_0(f, x):
    import torch

    x = f.relu(_conv(f, x, "features.0", 96, 7, 2))
    for index, squeezed in enumerate((0, 16, 16, 32, 0, 32, 48, 48, 64, 0, 64), start=2):
        name = f"features.{index}"
        if not squeezed:
            x = f.max_pool2d(x, 3, 2, ceil_mode=True)
            continue
        x = f.relu(_conv(f, x, f"{name}.squeeze", squeezed, 1))
        small = f.relu(_conv(f, x, f"{name}.expand1x1", 4 * squeezed, 1))
        large = f.relu(_conv(f, x, f"{name}.expand3x3", 4 * squeezed, 3, border=1))
        x = torch.cat([small, large], 1)
    x = f.relu(_conv(f, x, "classifier.1", CLASSES, 1))
    return f.adaptive_avg_pool2d(x, 1).flatten(1)


def main() -> None:
    import torch
    from torch.nn import functional

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = {}
    for network, size, channels in itertools.product(("ResNet18", "SqueezeNet1_0"), SIZES, (1, 3)):
        x = torch.from_numpy(images(size, channels)).float() / 255
        x = ((x.expand(-1, -1, -1, 3) - mean) / std).permute(0, 3, 1, 2)
        forward = resnet18 if network == "ResNet18" else squeezenet1_0
        logits[f"{network} {size} {channels}"] = forward(functional, x).tolist()
    FILE.write_text(json.dumps(logits, indent=1) + "\n")


if __name__ == "__main__":
    main()
