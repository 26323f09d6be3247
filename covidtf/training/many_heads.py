"""Gradients and optimisers of many heads at once, in NumPy: what Keras computes, to a rounding in float32.

Kernels are `(G, features, L, classes)` and biases `(G, L, classes)`, of G groups (seed and rows) and L
learning rates, so that the heads of a group share each product. In a step the first groups have a batch, none
larger than the first one's.
"""

from collections.abc import Callable

import numpy as np

from covidtf.training.devices import keras

CHUNK = 64  # feature maps that are read together where no gradient is wanted


def seed_dropout(model: "keras.Model", seed: int, epoch: int) -> None:
    """Set the state of each dropout by (seed, epoch, place in the whole model); its head shares it."""
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Dropout):
            state = np.random.SeedSequence([seed, epoch, index]).generate_state(1) >> 1
            layer.seed_generator.state.assign(np.array([state[0], 0]))


class Vectors:
    """Linear heads (ResNet, DenseNet), a vector per image.

    Args:
        model: Whose heads they are.
        features: `features.Features` or an array.
        labels: Class index per image.
        used: Rows that will be asked for, sorted.
        seeds: One per group.
    """

    def __init__(self, model: "keras.Model", features, labels: np.ndarray, used: np.ndarray, seeds):
        self.seeds, self.truth = seeds, _one_hot(model, labels)
        self.table, self.place = features[used], np.zeros(len(labels), np.int64)
        self.place[used] = np.arange(len(used))

    def gradients(self, parameters, shown, epoch: int, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Gradients for the groups whose rows are `shown`, and their mean cross-entropies `(groups, L)`."""
        left = np.array([len(rows) for rows in shown])[:, None]
        rows = np.stack([np.pad(rows, (0, len(shown[0]) - len(rows)), mode="edge") for rows in shown])
        weight = ((np.arange(rows.shape[1]) < left) / left).astype("float32")
        x = self.table[self.place[rows]]
        kernels, biases = (values[: len(shown)] for values in parameters)
        scores = (x @ kernels.reshape(*kernels.shape[:2], -1)).reshape(*rows.shape, *biases.shape[1:])
        loss, error = _cross_entropy(scores + biases[:, None], self.truth[rows], weight)
        kernel = x.swapaxes(1, 2) @ error.reshape(*rows.shape, -1)
        return [kernel.reshape(kernels.shape), error.sum(axis=1)], loss

    def logits(self, parameters, group: int, rows: np.ndarray) -> np.ndarray:
        """Logits of a group's heads, `(L, rows, classes)`."""
        x = self.table[self.place[rows]]
        scores = np.einsum("mf,flc->lmc", x, parameters[0][group], optimize=True)
        return scores + parameters[1][group][:, None]


class Maps:
    """SqueezeNet's heads (dropout, 1x1 convolution, ReLU, average), a feature map per image; as `Vectors`.

    Maps are read from the disk group by group. A dropout's mask follows from seed, epoch, step and the number
    of images, so that groups of the same seed share it.
    """

    def __init__(self, model: "keras.Model", features, labels: np.ndarray, used: np.ndarray, seeds):
        self.model, self.features, self.seeds, self.truth = model, features, seeds, _one_hot(model, labels)
        (self.dropout,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))

    def gradients(self, parameters, shown, epoch: int, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        """As `Vectors.gradients`."""
        masks, kernels, biases, losses = {}, [], [], []
        for group, rows in enumerate(shown):
            key = self.seeds[group], len(rows)
            if key not in masks:
                masks[key] = self._mask(*key, epoch, index)
            x = self.features[rows]
            x *= masks[key]
            kernel, bias, loss = self._group(parameters, group, rows, x)
            kernels.append(kernel)
            biases.append(bias)
            losses.append(loss)
        return [np.stack(kernels), np.stack(biases)], np.stack(losses)

    def logits(self, parameters, group: int, rows: np.ndarray) -> np.ndarray:
        """As `Vectors.logits`."""
        parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        empty = np.empty((0, *parameters[1].shape[1:]), "float32")
        means = [
            np.maximum(self._linear(parameters, group, self.features[part]), 0).mean(1) for part in parts
        ]
        return np.concatenate([empty, *means]).swapaxes(0, 1)

    def _group(self, parameters, group: int, rows: np.ndarray, x: np.ndarray):
        """Gradients of a group's kernels and biases, and their mean cross-entropies `(L,)`."""
        linear = self._linear(parameters, group, x)
        weight = np.full(len(rows), 1 / len(rows), "float32")
        loss, error = _cross_entropy(np.maximum(linear, 0).mean(1), self.truth[rows], weight)
        error = (linear > 0) * (error / np.float32(linear.shape[1]))[:, None]
        error = error.reshape(-1, *error.shape[2:])
        kernel = x.reshape(-1, x.shape[-1]).T @ error.reshape(len(error), -1)
        return kernel.reshape(parameters[0].shape[1:]), error.sum(axis=0), loss

    def _linear(self, parameters, group: int, x: np.ndarray) -> np.ndarray:
        """What the convolutions give, `(images, places, L, classes)`."""
        kernel, bias = (values[group] for values in parameters)
        linear = x.reshape(-1, x.shape[-1]) @ kernel.reshape(len(kernel), -1)
        return linear.reshape(len(x), -1, *bias.shape) + bias

    def _mask(self, seed: int, count: int, epoch: int, index: int) -> np.ndarray:
        """What dropout multiplies a batch's maps by in this step: 0, or 1 / (1 - rate)."""
        seed_dropout(self.model, seed, epoch)
        state = self.dropout.seed_generator.state
        # Each step before has moved it on by one.
        state.assign(keras.ops.convert_to_numpy(state) + np.array([0, index], "uint32"))
        ones = keras.ops.ones((count, *self.features.shape[1:]))
        return keras.ops.convert_to_numpy(self.dropout(ones, training=True)).astype("float32", copy=False)


def _one_hot(model: "keras.Model", labels: np.ndarray) -> np.ndarray:
    return np.eye(model.output.shape[-1], dtype="float32")[labels]


def _cross_entropy(
    scores: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums over images of the cross-entropies, and their gradients.

    Args:
        scores: Logits, shape `(..., images, L, classes)`.
        truth: One-hot, shape `(..., images, classes)`.
        weight: Of each image, shape `(..., images)`.
    Returns:
        Shapes `(..., L)` and `(..., images, L, classes)`.
    """
    scores = scores - scores.max(axis=-1, keepdims=True)
    shares = np.exp(scores)
    total = shares.sum(axis=-1, keepdims=True)
    truth = truth[..., None, :]
    loss = (np.log(total[..., 0]) - (scores * truth).sum(axis=-1)) * weight[..., None]
    return loss.sum(axis=-2), (shares / total - truth) * weight[..., None, None]


def adam(parameters: list[np.ndarray], learning_rates: np.ndarray) -> Callable:
    """Adam in the order of Keras' operations; a group has made its own number of steps."""
    means, squares = ([np.zeros_like(values) for values in parameters] for _ in range(2))
    steps, one = np.zeros(len(parameters[0]), "float32"), np.float32(1)

    def step(gradients):
        count = len(gradients[0])
        steps[:count] += 1
        # Kernels have an axis of inputs between groups and learning rates.
        done = steps[:count, None, None]
        alpha = (
            learning_rates[:, None]
            * np.sqrt(one - np.float32(0.999) ** done)
            / (one - np.float32(0.9) ** done)
        )
        for values, mean, square, gradient in zip(parameters, means, squares, gradients, strict=True):
            mean, square = mean[:count], square[:count]
            mean += (gradient - mean) * np.float32(1 - 0.9)
            square += (gradient * gradient - square) * np.float32(1 - 0.999)
            rate = alpha if values.ndim == 3 else alpha[:, None]
            values[:count] -= mean * rate / (np.sqrt(square) + np.float32(1e-8))

    return step


def sgd(parameters: list[np.ndarray], learning_rates: np.ndarray) -> Callable:
    """SGD with momentum 0.9 in the order of Keras' operations."""
    moments = [np.zeros_like(values) for values in parameters]

    def step(gradients):
        for values, moment, gradient in zip(parameters, moments, gradients, strict=True):
            moment = moment[: len(gradient)]
            moment *= np.float32(0.9)
            moment -= gradient * learning_rates[:, None]
            values[: len(gradient)] += moment

    return step


OPTIMIZERS = {"adam": adam, "sgd": sgd}
