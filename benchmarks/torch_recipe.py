"""What the published training script does, as a plain PyTorch loop: the other side of `benchmarks.recipe`.

Written from its description: each epoch opens and decodes every file with Pillow, transforms it, and shows it
to ResNet18 in batches of 20, first train, then val; the backbone's parameters ask for no gradient, so that
backward is the last layer's alone. As there, `model.train()` is on while training, so that frozen batch
normalisations use each batch's statistics. It differs from the script where the recipe that is compared does:
Adam as in the paper, and whole images (Resize and CenterCrop) in place of RandomResizedCrop, which can be
asked for.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks import torch_networks
from benchmarks.torch_score import MEAN, STD

SIZE = 224
WORKERS = 2  # processes that decode; the network takes the time of all cores anyway


class Images(torch.utils.data.Dataset):
    """Normalised RGB tensors `(3, 224, 224)` of image files, decoded whenever they are asked for.

    Args:
        paths: Files.
        labels: Class index of each.
        random: Whether to show RandomResizedCrop(224) of each, else its centre.
    """

    def __init__(self, paths: list[Path], labels: list[int], random: bool):
        self.paths, self.labels, self.random = paths, labels, random

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = _short_side(Image.open(self.paths[index]).convert("RGB"))
        image = _random_crop(image) if self.random else _center_crop(image)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (x - MEAN) / STD, self.labels[index]


def epoch_seconds(
    parts: dict[str, tuple[list[Path], list[int]]], share: float, random: bool = False, batch: int = 20
) -> float:
    """Seconds of one epoch over train and val, of which this share of each is timed.

    Args:
        parts: Files and labels of `train` and of `val`.
        share: More than 1 for several epochs, whose mean it then is.
        random: See `Images`.
        batch: Images per step.
    """
    torch.manual_seed(0)
    model = torch_networks.build("ResNet18", 2)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc = torch.nn.Linear(512, 2)
    optimizer = torch.optim.Adam(model.fc.parameters(), lr=1e-4)
    first = {name: (paths[:batch], labels[:batch]) for name, (paths, labels) in parts.items()}
    _epoch(model, optimizer, first, random, batch)
    timed, epochs = {}, max(1, math.ceil(share))
    for name, (paths, labels) in parts.items():
        count = round(len(paths) * share / epochs)
        timed[name] = paths[:count], labels[:count]
    start = time.perf_counter()
    for _ in range(epochs):
        _epoch(model, optimizer, timed, random, batch)
    return (time.perf_counter() - start) / share


def _epoch(model: torch.nn.Module, optimizer, parts: dict, random: bool, batch: int) -> None:
    for name, (paths, labels) in parts.items():
        train = name == "train"
        shown = Images(paths, labels, random and train)
        loader = torch.utils.data.DataLoader(shown, batch, shuffle=train, num_workers=WORKERS)
        model.train(train)
        for x, y in loader:
            optimizer.zero_grad()
            with torch.set_grad_enabled(train):
                loss = functional.cross_entropy(model(x), y)
            if train:
                loss.backward()
                optimizer.step()
            # The script sums loss and hits.
            loss.item()


def _short_side(image: Image.Image) -> Image.Image:
    short = min(image.size)
    if short == SIZE:
        return image
    return image.resize([int(SIZE * side / short) for side in image.size], Image.Resampling.BILINEAR)


def _center_crop(image: Image.Image) -> Image.Image:
    left, top = (round((side - SIZE) / 2) for side in image.size)
    return image.crop((left, top, left + SIZE, top + SIZE))


def _random_crop(image: Image.Image) -> Image.Image:
    area, ratio = torch.empty(2).uniform_().tolist()
    area, ratio = 0.08 + 0.92 * area, math.exp((2 * ratio - 1) * math.log(4 / 3))
    size = [min(1.0, math.sqrt(area * part)) for part in (ratio, 1 / ratio)]
    width, height = (share * side for share, side in zip(size, image.size, strict=True))
    left, top = torch.rand(2).tolist()
    left, top = left * (image.width - width), top * (image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
