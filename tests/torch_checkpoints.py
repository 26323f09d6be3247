"""Writes checkpoints/*.pt, which test_weights.py reads. It needs PyTorch, the tests do not.

Each content is written in both of torch.save's formats. Values are the fixed formula of names and shapes of
torch_reference.py. Run as `python tests/torch_checkpoints.py` wherever torch is installed.
"""

from pathlib import Path

import numpy as np
from torch_reference import parameter

FOLDER = Path(__file__).with_name("checkpoints")
FORMATS = ("zip", "legacy")
# A network of one convolution, one batch normalisation and one linear layer, by torch's names and shapes.
TINY = {
    "conv1.weight": (4, 3, 5, 5),
    "bn1.weight": (4,),
    "bn1.bias": (4,),
    "bn1.running_mean": (4,),
    "bn1.running_var": (4,),
    "fc.weight": (2, 4),
    "fc.bias": (2,),
}
_TYPES = ("float16", "float32", "float64", "int64", "uint8")


def tiny() -> dict[str, np.ndarray]:
    """Values of Tiny's tensors."""
    return {name: parameter(name, shape) for name, shape in TINY.items()}


def views() -> dict[str, np.ndarray]:
    """Values of tensors that lie in their storages in every way."""
    base = parameter("base", (6, 8))
    return {
        "base": base,
        "transposed": base.T,
        "part": base[2:5, 1:7:2],
        "last": base[5, 7],
        "column": base[:, 3],
        "empty": np.zeros((0, 3), np.float32),
    }


def types() -> dict[str, np.ndarray]:
    """Values by type; bfloat16 is what is left of float32 when its lower 16 bits are rounded away."""
    values = {name: (100 + 50 * parameter(name, (5, 3))).astype(name) for name in _TYPES}
    return values | {"bfloat16": np.array([1.0, -2.5, 3.140625, 2.0**100], np.float32)}


def _module():
    import torch

    network = torch.nn.Sequential()
    network.add_module("conv1", torch.nn.Conv2d(3, 4, 5, 4, bias=False))
    network.add_module("bn1", torch.nn.BatchNorm2d(4))
    network.add_module("fc", torch.nn.Linear(4, 2))
    for name, tensor in network.state_dict().items():
        if name in TINY:
            tensor.copy_(torch.from_numpy(tiny()[name]))
    return network


def _views() -> dict:
    import torch

    base = torch.from_numpy(views()["base"])
    parts = {"transposed": base.T, "part": base[2:5, 1:7:2], "last": base[5, 7], "column": base[:, 3]}
    return {"base": base, **parts, "empty": torch.zeros(0, 3)}


def _types() -> dict:
    import torch

    tensors = {name: torch.from_numpy(values) for name, values in types().items()}
    # The nearest of eight bits to pi is 3.140625.
    return tensors | {"bfloat16": torch.tensor([1.0, -2.5, 3.14159, 2.0**100]).bfloat16()}


def contents() -> dict[str, object]:
    """What the files hold, by name."""
    import torch

    network = _module()
    optimizer = torch.optim.Adam(network.parameters())
    # After a step the optimiser holds tensors of its own, which must not be taken for the network's.
    for tensor in network.parameters():
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    state = network.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "state-dict": state,
        "views": _views(),
        "types": _types(),
        "parameters": {name: torch.nn.Parameter(tensor) for name, tensor in state.items() if name in TINY},
        "training": {"epoch": 3, "best": 0.5, "state_dict": parallel, "optimizer": optimizer.state_dict()},
        "model": {"model": state, "done": True, "notes": ["a", None]},
        "int32": {"a": torch.arange(3, dtype=torch.int32)},
    }


def main() -> None:
    import torch

    FOLDER.mkdir(exist_ok=True)
    for name, content in contents().items():
        torch.save(content, FOLDER / f"{name}-zip.pt")
        torch.save(content, FOLDER / f"{name}-legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(contents()["training"], FOLDER / "protocol-4-zip.pt", pickle_protocol=4)
    # Not in the legacy format, which puts the network's source code and its path on this machine into it.
    torch.save(_module(), FOLDER / "whole-network-zip.pt")


if __name__ == "__main__":
    main()
