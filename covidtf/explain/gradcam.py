"""Grad-CAM: the feature maps of a stage, weighted by the mean gradient of a class's logit.

Reference: Selvaraju et al. 2017, arXiv 1610.02391.
"""

import importlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from covidtf.training.devices import keras
from covidtf.training.networks import AUXILIARY, HEADS, NETWORKS, supervised

__all__ = ["GradCAM", "main_only"]

_BATCH = 16


class GradCAM:
    """Maps of a network's evidence for a class: the positive part of `sum_k a_k A_k`.

    A_k are the feature maps at the end of a stage, a_k the mean over the pixels of the gradient of the logit.
    Of a deeply supervised network the score that counts may be fused from several heads
    (`supervised.scorer`); its logit is then the logarithm of the fused score, and heads that sit at earlier
    stages than `stage` are constants, since nothing of them passes through it.

    Args:
        model: Of `networks.build`, `supervised.extend` or `supervised.scorer`.
        stage: Number of the stage, from 1; None takes the last, whose side is that of the image / 32 (of
            SqueezeNet / 16).
        head: "score" is the model's own output; "main" or "auxiliary<stage>" that of one head.
    Attributes:
        layer: Name of the layer that ends the stage.
    Raises:
        ValueError: If the network has no such stage or head, or the head sits before the stage.
    """

    def __init__(self, model: "keras.Model", stage: int | None = None, head: str = "score"):
        ends = NETWORKS[model.name].stages
        stage = len(ends) if stage is None else stage
        if not 1 <= stage <= len(ends):
            raise ValueError(f"`stage` must be in [1, {len(ends)}] for {model.name}. Received: {stage}")
        self.layer, self._size = ends[stage - 1], model.input.shape[1]
        output, constants = _target(model, stage, head)
        features = model.get_layer(self.layer).output
        self._backbone = keras.Model(model.input, [features, *constants])
        self._tail = keras.Model([features, *constants], output)
        self._classes = output.shape[-1]

    def __call__(
        self, images: npt.NDArray, class_index: int | npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Maps of images.

        Args:
            images: Shape `(n, size, size, channels)`, values in [0, 255].
            class_index: Place of the class, one for all or one per image.
        Returns:
            Maps of shape `(n, size, size)`, bilinear between the pixels of the stage, divided by their maxima
            so that they are in [0, 1]; and the maxima, shape `(n,)`. A map without a positive part is 0, and
            so is its maximum.
        """
        classes = np.broadcast_to(class_index, len(images))
        parts = [
            self._maps(np.asarray(images[at : at + _BATCH], np.float32), classes[at : at + _BATCH])
            for at in range(0, len(images), _BATCH)
        ]
        maps = np.concatenate([np.empty((0, self._size, self._size), np.float32), *parts])
        peaks = maps.max(axis=(1, 2), initial=0)
        return maps / np.where(peaks > 0, peaks, 1)[:, None, None], peaks

    def _maps(self, images: npt.NDArray, classes: npt.NDArray) -> npt.NDArray[np.float32]:
        inputs = keras.tree.flatten(self._backbone(images, training=False))
        wanted = np.eye(self._classes, dtype="float32")[classes]
        slopes = np.asarray(keras.ops.convert_to_numpy(gradient(self._tail, inputs, wanted)), np.float32)
        features = np.asarray(keras.ops.convert_to_numpy(inputs[0]), np.float32)
        found = np.einsum("nhwc,nc->nhw", features, slopes.mean(axis=(1, 2)))
        return np.stack([_enlarged(np.maximum(one, 0), self._size) for one in found])


def main_only(model: "keras.Model") -> "keras.Model":
    """Of a `supervised.scorer` whose main head alone counts: the same logits without the other heads."""
    names = {layer.name for layer in model.layers}
    if "fusion" in names and model.get_layer("fusion").fusion == "main":
        return keras.Model(model.input, model.get_layer(HEADS).input[0], name=model.name)
    return model


def gradient(tail: "keras.Model", inputs: list, wanted: npt.NDArray):
    """Gradient of `sum(tail(inputs) * wanted)` with respect to the first of the inputs.

    Keras has none that is the same for every backend.

    Args:
        tail: Model in inference mode.
        inputs: Its inputs, as tensors.
        wanted: Weights of the outputs, in their shape.
    Raises:
        NotImplementedError: On a backend other than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise NotImplementedError(f"Gradients need the backend tensorflow or jax. Received: {backend}")
    framework, (first, *others) = importlib.import_module(backend), inputs
    if backend == "tensorflow":
        with framework.GradientTape() as tape:
            tape.watch(first)
            total = keras.ops.sum(tail([first, *others], training=False) * wanted)
        return tape.gradient(total, first)
    kinds = tail.trainable_variables, tail.non_trainable_variables
    trained, fixed = ([variable.value for variable in kind] for kind in kinds)

    def total_of(x):
        return keras.ops.sum(tail.stateless_call(trained, fixed, [x, *others], training=False)[0] * wanted)

    return framework.grad(total_of)(first)


def _target(model: "keras.Model", stage: int, head: str) -> tuple:
    """What is differentiated, and the logits of heads that do not depend on the stage."""
    if not supervised.has_heads(model):
        if head not in ("score", "main"):
            raise ValueError(f"`head` must be score or main: {model.name} has no others. Received: {head!r}")
        return model.output, []
    layer = model.get_layer(HEADS)
    logits = dict(zip(layer.names, layer.input, strict=True))
    if head != "score":
        return _of_head(logits, stage, head), []
    if model.output.shape[1:] == layer.output.shape[1:]:
        raise ValueError("`head` 'score' needs a model of `supervised.scorer`, or name a head")
    earlier = [tensor for name, tensor in logits.items() if _stage(name, stage) < stage]
    return model.output, earlier


def _of_head(logits: dict, stage: int, head: str):
    if head not in logits:
        raise ValueError(f"`head` must be score or one of {list(logits)}. Received: {head!r}")
    if _stage(head, stage) < stage:
        raise ValueError(f"`stage` must be at most that of the head, {head!r}. Received: {stage}")
    return logits[head]


def _stage(name: str, default: int) -> int:
    """Number of a head's stage; the main head is at none that is too early."""
    return int(name.removeprefix(AUXILIARY)) if name.startswith(AUXILIARY) else default


def _enlarged(found: npt.NDArray, size: int) -> npt.NDArray[np.float32]:
    return np.asarray(
        Image.fromarray(found.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    )
