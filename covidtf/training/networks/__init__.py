"""The networks, as torchvision defines them, in Keras: raw pixels in, logits out, head and backbone apart.

Layers are named as torchvision's modules (`layer1.0.conv1`, `features.3.squeeze`), so that a checkpoint's key
is a layer's name plus the parameter's.
"""

import zlib

import numpy as np

from covidtf.training.devices import keras
from covidtf.training.networks import densenet, resnet, squeezenet
from covidtf.training.networks.layers import Network

__all__ = ["NETWORKS", "Network", "build", "head_layers", "set_trained_part", "split_model"]

# Names of what `supervised` adds: each auxiliary head's layers begin with the first.
AUXILIARY, HEADS = "auxiliary", "heads"

# Mean and standard deviation of ImageNet's RGB pixels in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

NETWORKS = {
    "ResNet18": resnet.network(resnet.basic, (2, 2, 2, 2), features=512),
    "ResNet50": resnet.network(resnet.bottleneck, (3, 4, 6, 3), features=2048),
    "SqueezeNet1_0": squeezenet.network(96, 7, pools=(2, 6, 11), stages=(1, 5, 10, 12), smallest=21),
    "SqueezeNet1_1": squeezenet.network(64, 3, pools=(2, 5, 8), stages=(1, 4, 7, 12), smallest=17),
    "DenseNet121": densenet.network((6, 12, 24, 16), features=1024),
}


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
        size: Height and width of the images in pixels, at least the network's `smallest`: 32 for ResNets, 29
            for DenseNet121, 21 and 17 for SqueezeNet 1.0 and 1.1.
        seed: Not negative.
        precision: Keras dtype policy; input layers and head stay in float32 under any.
    Returns:
        Model from `(n, size, size, channels)`, pixel values in [0, 255], to `(n, classes)` logits.
    Raises:
        ValueError: If an argument is outside of its range.
    Reference: torchvision.models.

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
    """The layers that depend on the classes: the last dense layer, SqueezeNet's last 1x1 convolution."""
    return [model.get_layer(NETWORKS[model.name].head)]


def set_trained_part(model: "keras.Model", part: str) -> None:
    """Choose what training changes: the `head` alone or `all` layers. The model must be compiled afterwards.

    Auxiliary heads, and what weights the heads' losses, count as head.

    A frozen batch normalisation here uses its stored mean and variance and leaves them alone, as Keras does.
    The published PyTorch code only stops the gradients: there, the frozen layers still normalise by each
    batch and go on averaging, so that "the last layer only" also moves the backbone's statistics.

    Raises:
        ValueError: If `part` is neither `head` nor `all`.
    """
    if part not in ("head", "all"):
        raise ValueError(f"`part` must be 'head' or 'all'. Received: {part!r}")
    heads = head_layers(model)
    for layer in model.layers:
        added = layer.name == HEADS or layer.name.startswith(AUXILIARY)
        layer.trainable = part == "all" or added or layer in heads


def split_model(model: "keras.Model") -> tuple["keras.Model", "keras.Model"]:
    """Backbone (pixels to features) and head (features to logits), sharing the model's weights.

    Features of ResNets and DenseNet are a vector per image, after the global average, and the head is one
    linear layer. SqueezeNet's are a feature map: its head is dropout, a 1x1 convolution, ReLU and average.
    """
    network = NETWORKS[model.name]
    features = model.get_layer(network.pool or network.stages[-1]).output
    backbone = keras.Model(model.input, features, name=f"{model.name}-backbone")
    return backbone, keras.Model(features, model.output, name=f"{model.name}-head")


def _check(network: str, classes: int, channels: int, size: int) -> None:
    if network not in NETWORKS:
        raise ValueError(f"`network` must be one of {list(NETWORKS)}. Received: {network!r}")
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2. Received: {classes}")
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 (grey) or 3 (RGB). Received: {channels}")
    smallest = NETWORKS[network].smallest
    if size < smallest:
        raise ValueError(f"`size` must be at least {smallest} for {network}. Received: {size}")


def _normalise(x):
    # In float32 whatever the policy: float16 would round pixels to 11 bits before the first layer.
    x = keras.layers.Rescaling(1 / 255, name="scale", dtype="float32")(x)
    if x.shape[-1] == 1:
        x = keras.layers.Concatenate(name="rgb", dtype="float32")([x, x, x])
    variance = [std**2 for std in _STD]
    return keras.layers.Normalization(mean=_MEAN, variance=variance, name="imagenet", dtype="float32")(x)
