"""Writes torch_logits.json, which test_networks.py compares with. It needs PyTorch, the tests do not.

The networks are those of `benchmarks/torch_networks.py`, with torchvision's definitions and names. Every
parameter is a fixed formula of its name and shape, and so are the images. Run as
`python -m tests.torch_reference` wherever torch is installed.
"""

import json
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("torch_logits.json")
CLASSES = 3
# Each strided convolution and pool meets even and odd sides, whose borders differ; the first size of each
# network is its smallest.
_SIZES = {"ResNet18": (32, 65, 224), "ResNet50": (32, 65), "DenseNet121": (29, 68)}
_SIZES |= {"SqueezeNet1_0": (21, 32, 65, 224), "SqueezeNet1_1": (17, 32, 65)}
# Pairs of size and channels: grey and RGB in turn.
CASES = {
    name: [(size, 1 if index % 2 == 0 else 3) for index, size in enumerate(sizes)]
    for name, sizes in _SIZES.items()
}


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


def fill(network) -> None:
    """Give every parameter and running statistic of a `torch.nn.Module` the value of the formula."""
    import torch

    for name, tensor in network.state_dict().items():
        if tensor.ndim:
            tensor.copy_(torch.from_numpy(parameter(name, tuple(tensor.shape))))


def main() -> None:
    import torch

    from benchmarks import torch_networks

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = {}
    for name in torch_networks.NETWORKS:
        network = torch_networks.build(name, CLASSES).eval()
        fill(network)
        for size, channels in CASES[name]:
            x = torch.from_numpy(images(size, channels)).float() / 255
            x = ((x.expand(-1, -1, -1, 3) - mean) / std).permute(0, 3, 1, 2)
            with torch.no_grad():
                logits[f"{name} {size} {channels}"] = network(x).tolist()
    FILE.write_text(json.dumps(logits, indent=1) + "\n")


if __name__ == "__main__":
    main()
