"""SqueezeNet 1.0 and 1.1.

Reference: Iandola et al. 2016, arXiv 1602.07360; torchvision.models.squeezenet.
"""

from functools import partial

import numpy as np

from covidtf.training.networks.layers import Network, average, conv, keras, relu, uniform


def network(
    filters: int, kernel: int, pools: tuple[int, ...], stages: tuple[int, ...], smallest: int
) -> Network:
    """SqueezeNet: a convolution, then eight fire modules and three pools in the given order.

    Args:
        filters: Filters of the first convolution.
        kernel: Side of its kernel.
        pools: Places of the pools among the features, which begin with the convolution (0) and a ReLU (1).
        stages: Places of the features that end each stage.
        smallest: Smallest side of an image.
    """
    layers = partial(_layers, filters, kernel, pools)
    names = tuple(f"features.{index}" for index in stages)
    return Network(layers, _draw, "classifier.1", names, smallest=smallest)


def _layers(filters: int, kernel: int, pools: tuple[int, ...], x, classes: int):
    x = keras.layers.Conv2D(filters, kernel, 2, kernel_initializer="zeros", name="features.0")(x)
    x = relu(x, "features.1")
    squeezed = iter((16, 16, 32, 32, 48, 48, 64, 64))
    for index in range(2, 13):
        name = f"features.{index}"
        x = _pool(x, name) if index in pools else _fire(x, next(squeezed), name)
    x = keras.layers.Dropout(0.5, name="classifier.0")(x)
    x = conv(x, classes, 1, "classifier.1", bias=True, dtype="float32")
    return average(relu(x, "classifier.2", dtype="float32"), "classifier.3")


def _pool(x, name: str):
    # Torch's ceil mode: a window that starts inside an even image and ends outside counts, which is "same".
    padding = "same" if x.shape[1] % 2 == 0 else "valid"
    return keras.layers.MaxPooling2D(3, 2, padding, name=name)(x)


def _fire(x, squeezed: int, name: str):
    x = relu(conv(x, squeezed, 1, f"{name}.squeeze", bias=True), f"{name}.squeeze_activation")
    sides = [
        relu(conv(x, 4 * squeezed, side, f"{name}.{part}", bias=True), f"{name}.{part}_activation")
        for part, side in (("expand1x1", 1), ("expand3x3", 3))
    ]
    return keras.layers.Concatenate(name=name)(sides)


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He uniform by fan-in, normal with standard deviation 0.01 for the classifier, biases 0."""
    if len(shape) == 1:
        return np.zeros(shape, "float32")
    if name == "classifier.1":
        return rng.normal(0, 0.01, shape).astype("float32")
    return uniform(rng, shape, np.sqrt(6 / np.prod(shape[:3])))
