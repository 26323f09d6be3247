"""What the networks are made of: torchvision's layers in Keras, and the laws their weights are drawn from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covidtf.training.devices import keras
from covidtf.training.networks.normalisation import Normalisation


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        layers: `layers(x, classes)` adds the layers to a normalised RGB image and returns the logits.
        draw: `draw(rng, name, shape)` draws the first values of one convolution's or dense layer's parameter;
            `name` is the layer's, and a bias is told by its one-dimensional shape.
        head: Name of the last layer with weights, the one that depends on the number of classes.
        stages: Names of the layers that end each stage (a resolution).
        pool: Name of the global average that ends the backbone; "" where the last stage does.
        smallest: Smallest height and width of an image in pixels.
    """

    layers: Callable
    draw: Callable
    head: str
    stages: tuple[str, ...]
    pool: str = ""
    smallest: int = 32


def conv(x, filters: int, kernel: int, name: str, stride: int = 1, bias: bool = False, **options):
    """Convolution within a border of zeros of `kernel // 2` pixels on each side, as torch pads it."""
    x, padding = _border(x, kernel // 2, stride, name)
    layer = keras.layers.Conv2D(
        filters, kernel, stride, padding, use_bias=bias, kernel_initializer="zeros", name=name, **options
    )
    return layer(x)


def norm(x, name: str):
    """Batch normalisation with torch's epsilon and momentum (0.1 there is 0.9 here)."""
    return Normalisation(momentum=0.9, epsilon=1e-5, name=name)(x)


def relu(x, name: str, **options):
    """Rectified linear unit."""
    return keras.layers.ReLU(name=name, **options)(x)


def max_pool(x, name: str):
    """Largest of 3x3 pixels, every other pixel, within a border of one pixel. `x` must not be negative.

    Torch's border is minus infinity, here it may be zero: none of them wins over a pixel after a ReLU.
    """
    x, padding = _border(x, 1, 2, name)
    return keras.layers.MaxPooling2D(3, 2, padding, name=name)(x)


def average(x, name: str):
    """Mean over all pixels, in float32 whatever the policy: a vector."""
    return keras.layers.GlobalAveragePooling2D(name=name, dtype="float32")(x)


def dense(x, classes: int, name: str):
    """Linear layer, in float32 whatever the policy: logits."""
    return keras.layers.Dense(classes, kernel_initializer="zeros", name=name, dtype="float32")(x)


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan: int) -> np.ndarray:
    """Normal with variance 2 / fan."""
    return rng.normal(0, math.sqrt(2 / fan), shape).astype("float32")


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> np.ndarray:
    """Uniform in [-bound, bound)."""
    return rng.uniform(-bound, bound, shape).astype("float32")


def _border(x, border: int, stride: int, name: str) -> tuple:
    # Keras' "same" is torch's border, but for an even side under stride 2: the odd pixel of it then lies
    # before the image in torch, behind it in Keras. Behind, torch's last window ends one pixel earlier.
    if border == 0:
        return x, "valid"
    if stride == 1 or x.shape[1] % 2:
        return x, "same"
    sides = (border, border - 1)
    return keras.layers.ZeroPadding2D((sides, sides), name=f"{name}.border")(x), "valid"
