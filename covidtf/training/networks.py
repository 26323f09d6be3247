"""The networks, as torchvision defines them, in Keras: raw pixels in, logits out, head and backbone apart.

Layers are named as torchvision's modules (`layer1.0.conv1`, `features.3.squeeze`), so that a checkpoint's key
is a layer's name plus the parameter's. Max pools follow a ReLU throughout, so a border of zeros never wins
over a pixel and equals torch's border of minus infinity.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covidtf.training.devices import keras

# Mean and standard deviation of ImageNet's RGB pixels in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_SMALLEST = 32


@dataclass(frozen=True)
class Network:
    """One architecture.

    Attributes:
        layers: `layers(x, classes)` adds the layers to a normalised RGB image and returns the logits.
        draw: `draw(rng, name, shape)` draws the first values of one convolution's or dense layer's parameter;
            `name` is the layer's, and a bias is told by its one-dimensional shape.
        head: Name of the last layer with weights, the one that depends on the number of classes.
        stages: Names of the layers that end each stage (a resolution); the last ends the backbone.
    """

    layers: Callable
    draw: Callable
    head: str
    stages: tuple[str, ...]


def build(
    network: str,
    classes: int,
    channels: int = 1,
    size: int = 224,
    seed: int = 0,
    precision: str = "float32",
) -> "keras.Model":
    """Network with freshly drawn weights, from raw pixels to logits.

    The model scales pixels to [0, 1], repeats a grey channel to three, subtracts ImageNet's mean and divides
    by its standard deviation (layers `scale`, `rgb`, `imagenet`), then is torchvision's network. Weights are
    drawn as torchvision draws them, each layer from its own generator `default_rng([seed, crc32(name)])`, so
    they do not depend on the backend, nor on the other layers.

    Args:
        network: A key of `NETWORKS`.
        classes: Number of logits, at least 2.
        channels: 1 (grey) or 3 (RGB).
        size: Height and width of the images in pixels, at least 32.
        seed: Not negative.
        precision: Keras dtype policy; input layers and head stay in float32 under any.
    Returns:
        Model from `(n, size, size, channels)`, pixel values in [0, 255], to `(n, classes)` logits.
    Raises:
        ValueError: If an argument is outside of its range.
    Reference: He et al. 2016, arXiv 1512.03385; Iandola et al. 2016, arXiv 1602.07360; torchvision.models.

    >>> build("SqueezeNet1_0", classes=1000).count_params()
    1248424
    """
    _check(network, classes, channels, size)
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        pixels = keras.Input((size, size, channels), dtype="float32", name="pixels")
        logits = NETWORKS[network].layers(_normalise(pixels), classes)
        model = keras.Model(pixels, logits, name=network)
    finally:
        keras.config.set_dtype_policy(kept)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            rng = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
            draw = NETWORKS[network].draw
            layer.set_weights([draw(rng, layer.name, tuple(weight.shape)) for weight in layer.weights])
    return model


def head_layers(model: "keras.Model") -> list["keras.Layer"]:
    """The layers that depend on the classes: ResNet's dense layer, SqueezeNet's last 1x1 convolution."""
    return [model.get_layer(NETWORKS[model.name].head)]


def set_trained_part(model: "keras.Model", part: str) -> None:
    """Choose what training changes: the `head` alone or `all` layers. The model must be compiled afterwards.

    A frozen batch normalisation here uses its stored mean and variance and leaves them alone, as Keras does.
    The published PyTorch code only stops the gradients: there, the frozen layers still normalise by each
    batch and go on averaging, so that "the last layer only" also moves the backbone's statistics.

    Raises:
        ValueError: If `part` is neither `head` nor `all`.
    """
    if part not in ("head", "all"):
        raise ValueError(f"`part` must be 'head' or 'all'. Received: {part!r}")
    trained = head_layers(model) if part == "head" else model.layers
    for layer in model.layers:
        layer.trainable = layer in trained


def split_model(model: "keras.Model") -> tuple["keras.Model", "keras.Model"]:
    """Backbone (pixels to the last stage's feature map) and head (feature map to logits), sharing weights."""
    features = model.get_layer(NETWORKS[model.name].stages[-1]).output
    backbone = keras.Model(model.input, features, name=f"{model.name}-backbone")
    return backbone, keras.Model(features, model.output, name=f"{model.name}-head")


def _check(network: str, classes: int, channels: int, size: int) -> None:
    if network not in NETWORKS:
        raise ValueError(f"`network` must be one of {list(NETWORKS)}. Received: {network!r}")
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2. Received: {classes}")
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 (grey) or 3 (RGB). Received: {channels}")
    if size < _SMALLEST:
        raise ValueError(f"`size` must be at least {_SMALLEST}. Received: {size}")


def _normalise(x):
    # In float32 whatever the policy: float16 would round pixels to 11 bits before the first layer.
    x = keras.layers.Rescaling(1 / 255, name="scale", dtype="float32")(x)
    if x.shape[-1] == 1:
        x = keras.layers.Concatenate(name="rgb", dtype="float32")([x, x, x])
    variance = [std**2 for std in _STD]
    return keras.layers.Normalization(mean=_MEAN, variance=variance, name="imagenet", dtype="float32")(x)


def _conv(x, filters: int, kernel: int, name: str, stride: int = 1, border: int = 0, **options):
    # Keras' strided "same" puts an odd pixel of border at the end only, torch one on each side.
    if border and stride > 1:
        x = keras.layers.ZeroPadding2D(border, name=f"{name}.border")(x)
    padding = "same" if border and stride == 1 else "valid"
    conv = keras.layers.Conv2D(
        filters, kernel, stride, padding=padding, kernel_initializer="zeros", name=name, **options
    )
    return conv(x)


def _relu(x, name: str, **options):
    return keras.layers.ReLU(name=name, **options)(x)


def _normalised_conv(x, filters: int, kernel: int, conv: str, norm: str, stride: int = 1, border: int = 0):
    x = _conv(x, filters, kernel, conv, stride, border, use_bias=False)
    # Torch's momentum 0.1. It averages the unbiased variance of a batch, Keras the biased one.
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(x)


def _resnet18(x, classes: int):
    x = _relu(_normalised_conv(x, 64, 7, "conv1", "bn1", stride=2, border=3), "relu")
    x = keras.layers.ZeroPadding2D(1, name="maxpool.border")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        x = _basic_block(x, filters, 1 if stage == 1 else 2, f"layer{stage}.0")
        x = _basic_block(x, filters, 1, f"layer{stage}.1")
    x = keras.layers.GlobalAveragePooling2D(name="avgpool")(x)
    return keras.layers.Dense(classes, kernel_initializer="zeros", name="fc", dtype="float32")(x)


def _basic_block(x, filters: int, stride: int, name: str):
    y = _normalised_conv(x, filters, 3, f"{name}.conv1", f"{name}.bn1", stride, border=1)
    y = _relu(y, f"{name}.relu")
    y = _normalised_conv(y, filters, 3, f"{name}.conv2", f"{name}.bn2", border=1)
    if stride > 1:
        x = _normalised_conv(x, filters, 1, f"{name}.downsample.0", f"{name}.downsample.1", stride)
    return _relu(keras.layers.Add(name=f"{name}.add")([y, x]), name)


def _squeezenet1_0(x, classes: int):
    x = _relu(_conv(x, 96, 7, "features.0", stride=2), "features.1")
    fires = {3: 16, 4: 16, 5: 32, 7: 32, 8: 48, 9: 48, 10: 64, 12: 64}
    for index in range(2, 13):
        x = _fire(x, fires[index], f"features.{index}") if index in fires else _pool(x, f"features.{index}")
    x = keras.layers.Dropout(0.5, name="classifier.0")(x)
    x = _relu(_conv(x, classes, 1, "classifier.1", dtype="float32"), "classifier.2", dtype="float32")
    return keras.layers.GlobalAveragePooling2D(name="classifier.3", dtype="float32")(x)


def _pool(x, name: str):
    # Torch's ceil mode: a window that starts inside an even image and ends outside counts, which is "same".
    padding = "same" if x.shape[1] % 2 == 0 else "valid"
    return keras.layers.MaxPooling2D(3, 2, padding=padding, name=name)(x)


def _fire(x, squeezed: int, name: str):
    x = _relu(_conv(x, squeezed, 1, f"{name}.squeeze"), f"{name}.squeeze_activation")
    small = _relu(_conv(x, 4 * squeezed, 1, f"{name}.expand1x1"), f"{name}.expand1x1_activation")
    large = _conv(x, 4 * squeezed, 3, f"{name}.expand3x3", border=1)
    return keras.layers.Concatenate(name=name)([small, _relu(large, f"{name}.expand3x3_activation")])


def _draw_resnet(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He normal by fan-out for convolutions; uniform within 1/sqrt(inputs), torch's default, for `fc`."""
    if name == "fc":
        bound = 1 / np.sqrt(512)
        return rng.uniform(-bound, bound, shape).astype("float32")
    height, width, _, filters = shape
    return rng.normal(0, np.sqrt(2 / (height * width * filters)), shape).astype("float32")


def _draw_squeezenet(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He uniform by fan-in, normal with standard deviation 0.01 for the classifier, biases 0."""
    if len(shape) == 1:
        return np.zeros(shape, "float32")
    if name == "classifier.1":
        return rng.normal(0, 0.01, shape).astype("float32")
    bound = np.sqrt(6 / np.prod(shape[:3]))
    return rng.uniform(-bound, bound, shape).astype("float32")


NETWORKS = {
    "ResNet18": Network(
        _resnet18, _draw_resnet, "fc", ("relu", "layer1.1", "layer2.1", "layer3.1", "layer4.1")
    ),
    "SqueezeNet1_0": Network(
        _squeezenet1_0,
        _draw_squeezenet,
        "classifier.1",
        ("features.1", "features.5", "features.10", "features.12"),
    ),
}
