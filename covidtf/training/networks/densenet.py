"""DenseNet121.

Reference: Huang et al. 2017, arXiv 1608.06993; torchvision.models.densenet.
"""

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

_FILTERS, _GROWTH, _BOTTLENECK = 64, 32, 4 * 32


def network(depths: tuple[int, ...], features: int) -> Network:
    """DenseNet of growth 32.

    Args:
        depths: Number of layers in each dense block.
        features: Channels that the last block gives.
    """
    blocks = (f"features.denseblock{block}" for block in range(1, len(depths)))
    stages = ("features.relu0", *blocks, "relu")
    draw = partial(_draw, features)
    return Network(partial(_layers, depths), draw, "classifier", stages, pool="avgpool", smallest=29)


def _layers(depths: tuple[int, ...], x, classes: int):
    x = _norm_relu(conv(x, _FILTERS, 7, "features.conv0", stride=2), "features", "0")
    x = max_pool(x, "features.pool0")
    for block, depth in enumerate(depths, start=1):
        x = _block(x, depth, f"features.denseblock{block}")
        if block < len(depths):
            x = _transition(x, f"features.transition{block}")
    x = relu(norm(x, "features.norm5"), "relu")
    return dense(average(x, "avgpool"), classes, "classifier")


def _block(x, depth: int, name: str):
    for index in range(1, depth + 1):
        layer = f"{name}.denselayer{index}"
        y = conv(_norm_relu(x, layer, "1"), _BOTTLENECK, 1, f"{layer}.conv1")
        y = conv(_norm_relu(y, layer, "2"), _GROWTH, 3, f"{layer}.conv2")
        x = keras.layers.Concatenate(name=name if index == depth else f"{layer}.concat")([x, y])
    return x


def _transition(x, name: str):
    x = conv(_norm_relu(x, name, ""), x.shape[-1] // 2, 1, f"{name}.conv")
    return keras.layers.AveragePooling2D(2, name=f"{name}.pool")(x)


def _norm_relu(x, name: str, number: str):
    return relu(norm(x, f"{name}.norm{number}"), f"{name}.relu{number}")


def _draw(features: int, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He normal by fan-in; for the classifier bias 0 and weights uniform within 1/sqrt(inputs)."""
    if len(shape) == 1:
        return np.zeros(shape, "float32")
    if name == "classifier":
        return uniform(rng, shape, 1 / np.sqrt(features))
    return he_normal(rng, shape, int(np.prod(shape[:3])))
