"""ResNet18 and ResNet50, with the stride in the 3x3 convolution of a bottleneck (version 1.5).

Reference: He et al. 2016, arXiv 1512.03385; torchvision.models.resnet.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from covidtf.training.networks.layers import (
    Network,
    average,
    conv,
    dense,
    he_normal,
    keras,
    max_pool,
    norm,
    relu,
    uniform,
)


def network(block: Callable, depths: tuple[int, ...], features: int) -> Network:
    """ResNet of four stages.

    Args:
        block: `basic` or `bottleneck`.
        depths: Number of blocks in each stage.
        features: Channels that the last stage gives.
    """
    ends = tuple(f"layer{stage}.{depth - 1}" for stage, depth in enumerate(depths, start=1))
    layers = partial(_layers, block, depths)
    return Network(layers, partial(_draw, features), "fc", ("relu", *ends), pool="avgpool")


def basic(x, width: int, stride: int, name: str):
    """Two 3x3 convolutions and a way around them."""
    y = relu(_conv_norm(x, width, 3, f"{name}.conv1", f"{name}.bn1", stride), f"{name}.relu")
    y = _conv_norm(y, width, 3, f"{name}.conv2", f"{name}.bn2")
    return _add(x, y, stride, name)


def bottleneck(x, width: int, stride: int, name: str):
    """A 3x3 convolution between two 1x1 ones, the last to four times the width, and a way around them."""
    y = relu(_conv_norm(x, width, 1, f"{name}.conv1", f"{name}.bn1"), f"{name}.relu1")
    y = relu(_conv_norm(y, width, 3, f"{name}.conv2", f"{name}.bn2", stride), f"{name}.relu2")
    y = _conv_norm(y, 4 * width, 1, f"{name}.conv3", f"{name}.bn3")
    return _add(x, y, stride, name)


def _layers(block: Callable, depths: tuple[int, ...], x, classes: int):
    x = max_pool(relu(_conv_norm(x, 64, 7, "conv1", "bn1", stride=2), "relu"), "maxpool")
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            stride = 2 if stage > 1 and index == 0 else 1
            x = block(x, 32 * 2**stage, stride, f"layer{stage}.{index}")
    return dense(average(x, "avgpool"), classes, "fc")


def _add(x, y, stride: int, name: str):
    if x.shape != y.shape:
        x = _conv_norm(x, y.shape[-1], 1, f"{name}.downsample.0", f"{name}.downsample.1", stride)
    return relu(keras.layers.Add(name=f"{name}.add")([y, x]), name)


def _conv_norm(x, filters: int, kernel: int, name: str, norm_name: str, stride: int = 1):
    return norm(conv(x, filters, kernel, name, stride), norm_name)


def _draw(features: int, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He normal by fan-out for convolutions; uniform within 1/sqrt(inputs), torch's default, for `fc`."""
    if name == "fc":
        return uniform(rng, shape, 1 / np.sqrt(features))
    height, width, _, filters = shape
    return he_normal(rng, shape, height * width * filters)
