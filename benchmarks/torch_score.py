"""What published inference code does: one image at a time through PyTorch, in a plain loop.

Written from the description of such scripts: Pillow opens the file, RGB, short side to the network's, centre
crop, normalise, forward without gradients, softmax. It is the other side of `benchmarks.score`.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import torch_networks

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def load(network: str, classes: int, weights: Path) -> torch.nn.Module:
    """Network with the parameters of an `.npz` file under torchvision's names, after its first image."""
    model = torch_networks.build(network, classes)
    with np.load(weights) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    # Not strict, because Keras has no counters of batches; they decide nothing.
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{weights}: not the parameters of {network}: {missing}, {unexpected}")
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    return model


def score(model: torch.nn.Module, path: Path, size: int = 224) -> np.ndarray:
    """Scores of one file, shape `(classes,)`."""
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    image = image.resize([int(size * side / short) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in image.size)
    image = image.crop((left, top, left + size, top + size))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    with torch.no_grad():
        return torch.softmax(model(((x - MEAN) / STD)[None]), 1)[0].numpy()
