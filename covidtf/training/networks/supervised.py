"""Deep supervision: auxiliary heads at inner stages of a network, and what is made of their outputs.

A reconstruction: where Hu et al. 2021 put their heads, how many and of which layers, is not published.
"""

import zlib

import numpy as np

from covidtf.training.devices import keras
from covidtf.training.networks import AUXILIARY, HEADS, NETWORKS, build, grey
from covidtf.training.networks.fusion import Fusion, Heads, fuse
from covidtf.training.networks.layers import average, conv, dense, he_normal, norm, relu, uniform

__all__ = [
    "SETTINGS",
    "extend",
    "fused",
    "has_heads",
    "head_weights",
    "plain",
    "restore",
    "scorer",
    "stage_numbers",
]

# What of a `config.DeepConfig` decides the layers.
SETTINGS = ("auxiliary", "stages", "auxiliary_weight", "auxiliary_width", "folded")
FUSIONS = ("main", "mean", "learned")


def stage_numbers(network: str, stages: str = "") -> list[int]:
    """Numbers of the inner stages that have an auxiliary head, from 1.

    Args:
        network: A key of `NETWORKS`.
        stages: The numbers, separated by spaces; `""` is the two before the last stage, whose features are
            more than edges and still have layers above them.
    Raises:
        ValueError: If a number is not of an inner stage, or is given twice; the last stage has the main head.
    """
    last = len(NETWORKS[network].stages)
    numbers = [int(word) for word in stages.split()] or [n for n in (last - 2, last - 1) if n > 0]
    if not numbers or len(set(numbers)) < len(numbers) or not all(0 < number < last for number in numbers):
        raise ValueError(
            f"`stages` must be different numbers from 1 to {last - 1} for {network}. Received: {stages!r}"
        )
    return sorted(numbers)


def extend(model: "keras.Model", settings: dict, seed: int = 0, drawn: bool = False) -> "keras.Model":
    """The training model: with auxiliary heads, and with a first layer of one channel if `folded`.

    An auxiliary head is a 3x3 convolution, batch normalisation, ReLU, global average and a linear layer, or
    the last two alone, on the outputs of its stage; on those that end in no ReLU (DenseNet's blocks) batch
    normalisation and ReLU come first. Its weights are drawn as `networks.build` draws: He normal by fan-out,
    and uniform within 1/sqrt(inputs).

    Args:
        model: Of `networks.build`, with the weights that training starts from. Unless folded its layers are
            shared, so that both change.
        settings: Those in `SETTINGS`, as in `config.DeepConfig`; empty ones change nothing.
        seed: For the new layers.
        drawn: Whether the model's weights are drawn, and not learnt: a folded layer is then drawn too.
    Returns:
        Model from pixels to `(n, heads, classes + 1)`, the main head first (`Heads`); without auxiliary
        heads to `(n, classes)` logits.
    Raises:
        ValueError: If `folded` and the images are not grey, an unknown `auxiliary`, a stage there is not.
    """
    auxiliary = settings.get("auxiliary", "none")
    if auxiliary not in ("none", "fixed", "learned"):
        raise ValueError(f"`auxiliary` must be none, fixed or learned. Received: {auxiliary!r}")
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(model.dtype_policy)
    try:
        if settings.get("folded", False):
            model = grey.fold(model, seed if drawn else None)
        if auxiliary != "none":
            model = _supervise(model, settings, seed)
    finally:
        keras.config.set_dtype_policy(kept)
    return model


def restore(settings: dict, precision: str = "float32") -> "keras.Model":
    """The model of a run, as `extend` made it, for its weights to be loaded.

    Args:
        settings: Of its `training.json`: network, classes, shape, and those in `SETTINGS` that it has.
        precision: Keras dtype policy.
    """
    size, channels = settings["shape"][1:]
    model = build(settings["network"], len(settings["classes"]), channels, size, precision=precision)
    return extend(model, settings)


def plain(model: "keras.Model") -> "keras.Model":
    """The network of `networks.build` that is in a training model, with copies of its weights.

    A folded first layer is divided again among three channels, which changes outputs by rounding alone, but
    for the border (`grey.fold`).
    """
    main = _heads(model).input[0] if has_heads(model) else model.output
    (size, _, channels), classes = model.input.shape[1:], main.shape[-1]
    found = build(model.name, classes, channels, size, precision=model.dtype_policy)
    names = {layer.name for layer in model.layers}
    folded = channels == 1 and "rgb" not in names
    for layer in found.layers:
        if layer.weights and not (folded and layer is grey.first_layer(found)):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    if folded:
        grey.unfold(found, model)
    return found


def scorer(model: "keras.Model", fusion: str = "main") -> "keras.Model":
    """Model from pixels to logits `(n, classes)`, whose softmax is the score that counts.

    Args:
        model: Of `extend`; one without auxiliary heads is returned as it is.
        fusion: `main` is the main head's score; `mean` the mean of all heads' scores; `learned` their mean
            with weights in proportion to `1 / c_m^2` (`losses.SelfAdaptiveLoss`).
    Raises:
        ValueError: If `fusion` is unknown, or `learned` where no weights are.
    """
    _check_fusion(model, fusion)
    if not has_heads(model):
        return model
    outputs = Fusion(fusion, name="fusion", dtype="float32")(model.output)
    return keras.Model(model.input, outputs, name=model.name)


def fused(model: "keras.Model", outputs: np.ndarray, fusion: str = "main") -> np.ndarray:
    """What `scorer` gives, from the outputs of the model; those of one without heads stay as they are."""
    _check_fusion(model, fusion)
    if not has_heads(model):
        return outputs
    return np.asarray(keras.ops.convert_to_numpy(fuse(keras.ops.convert_to_tensor(outputs), fusion)))


def has_heads(model: "keras.Model") -> bool:
    """Whether it has auxiliary heads, so that its outputs are those of `Heads`."""
    return any(layer.name == HEADS for layer in model.layers)


def head_weights(model: "keras.Model") -> dict[str, float]:
    """Weight of each head's loss by its name: `1 / (2 c_m^2)` where it is learned; empty without heads."""
    if not has_heads(model):
        return {}
    layer = _heads(model)
    values = np.exp(-2 * np.asarray(layer.log_c, np.float64)) / 2 if layer.learned else layer.shares
    return {name: float(value) for name, value in zip(layer.names, values, strict=True)}


def _supervise(model: "keras.Model", settings: dict, seed: int) -> "keras.Model":
    network, classes = NETWORKS[model.name], model.output.shape[-1]
    numbers = stage_numbers(model.name, settings["stages"])
    logits, names = [model.output], ["main"]
    for number in numbers:
        stage = model.get_layer(network.stages[number - 1])
        names.append(f"{AUXILIARY}{number}")
        x = stage.output
        if not _rectified(model, stage):
            x = relu(norm(x, f"{names[-1]}.norm0"), f"{names[-1]}.relu0")
        logits.append(_auxiliary(x, classes, settings["auxiliary_width"], names[-1]))
    fixed = settings["auxiliary"] == "fixed"
    shares = [1.0] + [float(settings["auxiliary_weight"])] * len(numbers) if fixed else []
    outputs = Heads(names, shares, name=HEADS, dtype="float32")(logits)
    extended = keras.Model(model.input, outputs, name=model.name)
    _draw(extended, seed)
    return extended


def _auxiliary(x, classes: int, width: int, name: str):
    if width:
        x = relu(norm(conv(x, width, 3, f"{name}.conv"), f"{name}.norm"), f"{name}.relu")
    return dense(average(x, f"{name}.pool"), classes, name)


def _draw(model: "keras.Model", seed: int) -> None:
    for layer in model.layers:
        if layer.name.startswith(AUXILIARY) and isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            rng = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
            shape = tuple(layer.kernel.shape)
            if len(shape) == 4:
                layer.set_weights([he_normal(rng, shape, shape[0] * shape[1] * shape[3])])
            else:
                bound = 1 / np.sqrt(shape[0])
                layer.set_weights([uniform(rng, tuple(w.shape), bound) for w in layer.weights])


def _rectified(model: "keras.Model", layer: "keras.Layer") -> bool:
    """Whether outputs are those of ReLUs, side by side or pooled or alone."""
    if isinstance(layer, keras.layers.Concatenate | keras.layers.MaxPooling2D):
        made_by = {id(other.output): other for other in model.layers}
        return all(_rectified(model, made_by[id(x)]) for x in keras.tree.flatten(layer.input))
    return isinstance(layer, keras.layers.ReLU)


def _heads(model: "keras.Model") -> Heads:
    return model.get_layer(HEADS)


def _check_fusion(model: "keras.Model", fusion: str) -> None:
    if fusion not in FUSIONS:
        raise ValueError(f"`fusion` must be one of {FUSIONS}. Received: {fusion!r}")
    if fusion == "learned" and not (has_heads(model) and _heads(model).learned):
        raise ValueError("`fusion` 'learned' needs `auxiliary` 'learned'")
