"""A network whose first convolution reads one grey channel, instead of three that are equal, and back."""

import zlib

import numpy as np

from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS


def fold(model: "keras.Model", seed: int | None = None) -> "keras.Model":
    """The same function of a grey image, with a third of the first layer's work.

    With the mean and standard deviation m_c, s_c of ImageNet's channels, a grey pixel g and the kernel K, the
    first layer gives `sum_c K_c (g - m_c) / s_c`. With M and S, the means of m and of s, that is
    `K' (g - M) / S + k`, where `K' = sum_c K_c S / s_c`, and `k = sum_c K_c (M - m_c) / s_c`, summed over the
    kernel's places, goes into the bias, or from the moving mean of the batch normalisation that follows.
    Equal up to rounding, but for the border of zeros, which is grey m_c in one and grey M in the other.

    Args:
        model: Of `networks.build` for one channel. It is left alone; weights are copies.
        seed: Draw the new kernel with this seed, by the network's law for one channel, instead.
    Raises:
        ValueError: If the model does not read grey images.
    """
    if model.input.shape[-1] != 1:
        raise ValueError(f"`folded` needs images of 1 channel. Received: {model.input.shape[-1]}")
    single = _without_rgb(model)
    changed = _folded(model) if seed is None else _drawn(model, seed)
    for layer in single.layers:
        if layer.weights:
            layer.set_weights(changed.get(layer.name) or model.get_layer(layer.name).get_weights())
    return single


def unfold(model: "keras.Model", single: "keras.Model") -> None:
    """Give `model`, of three channels inside, the first layer of its folded one: `K_c = K' s_c / (3 S)`.

    Folded again it is `single` up to rounding, since k is 0 then.
    """
    first, std = first_layer(model), _channels(model)[1]
    kernel, *bias = single.get_layer(first.name).get_weights()
    wide = kernel * (std / (3 * std.mean()))[:, None]
    first.set_weights([wide.astype("float32"), *bias])


def first_layer(model: "keras.Model") -> "keras.Layer":
    """The first convolution."""
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


def _without_rgb(model: "keras.Model") -> "keras.Model":
    mean, std = _channels(model)

    def clone(layer):
        if layer.name == "imagenet":
            return keras.layers.Normalization(
                mean=[mean.mean()], variance=[std.mean() ** 2], name=layer.name, dtype="float32"
            )
        return type(layer).from_config(layer.get_config())

    def call(layer, *args, **options):
        return args[0][0] if layer.name == "rgb" else layer(*args, **options)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _folded(model: "keras.Model") -> dict[str, list[np.ndarray]]:
    """New weights of the layers that change, by name."""
    first, (mean, std) = first_layer(model), _channels(model)
    kernel, *bias = (value.astype(np.float64) for value in first.get_weights())
    folded = (kernel * (std.mean() / std)[:, None]).sum(axis=2, keepdims=True)
    constant = np.einsum("hwcf,c->f", kernel, (mean.mean() - mean) / std)
    if bias:
        return {first.name: [folded, bias[0] + constant]}
    following = [layer for layer in model.layers if layer.input is first.output]
    if len(following) != 1 or not isinstance(following[0], keras.layers.BatchNormalization):
        raise ValueError(f"`{first.name}` must have a bias or batch normalisation after it, to be folded")
    gamma, beta, moving_mean, variance = following[0].get_weights()
    return {first.name: [folded], following[0].name: [gamma, beta, moving_mean - constant, variance]}


def _drawn(model: "keras.Model", seed: int) -> dict[str, list[np.ndarray]]:
    first = first_layer(model)
    rng, draw = np.random.default_rng([seed, zlib.crc32(first.name.encode())]), NETWORKS[model.name].draw
    shapes = [tuple(weight.shape) for weight in first.weights]
    shapes[0] = (*shapes[0][:2], 1, shapes[0][3])
    return {first.name: [draw(rng, first.name, shape) for shape in shapes]}


def _channels(model: "keras.Model") -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of ImageNet's channels, as the model subtracts and divides by them."""
    config = model.get_layer("imagenet").get_config()
    return np.asarray(config["mean"], np.float64), np.sqrt(np.asarray(config["variance"], np.float64))
