"""Training of heads on features that are already there: one as Keras does it, or many at once."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from covidtf.training.batches import Batches
from covidtf.training.devices import feed, keras
from covidtf.training.many_heads import OPTIMIZERS, Maps, Vectors, seed_dropout
from covidtf.training.networks import NETWORKS, head_layers

__all__ = ["first_weights", "logits", "run_epoch", "seed_dropout", "train_heads"]

TOGETHER = 64  # batches of vectors that are read at once

Follow = Callable[[int, int, int, float, np.ndarray, list[np.ndarray]], None]


def run_epoch(
    head: "keras.Model", features, labels: np.ndarray, order: np.ndarray, batch_size: int, callbacks=()
) -> float:
    """Train a compiled head for one epoch: its weights become those of the whole model, the backbone frozen.

    Args:
        head: The second of `networks.split_model`, compiled. With `steps_per_execution` set to the steps of
            an epoch, an epoch on vectors takes half the time.
        features: `features.Features` or an array, one row per image.
        labels: Class index per image.
        order: Rows in the order shown; the last batch may be smaller.
    Returns:
        The mean loss over the epoch, while weights change.
    """
    shown = Batches(features, labels, order, batch_size)
    together = TOGETHER if len(features.shape) == 2 else 1
    fitted = feed(head.fit, shown, together, shuffle=False, verbose=0, callbacks=list(callbacks))
    return float(fitted.history["loss"][0])


def logits(head: "keras.Model", features, rows: np.ndarray, batch_size: int = 20) -> np.ndarray:
    """Logits of `rows`, float32 `(m, classes)`; vectors all at once, feature maps batch by batch."""
    if len(rows) == 0:
        return np.empty((0, head.output.shape[-1]), "float32")
    if len(features.shape) == 2:
        batch_size = len(rows)
    # Called, not predicted: `predict` takes longer to start than a head to compute.
    parts = [
        head(features[rows[start : start + batch_size]], training=False)
        for start in range(0, len(rows), batch_size)
    ]
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])


def first_weights(model: "keras.Model", seed: int) -> list[np.ndarray]:
    """Kernel and bias of the head as `networks.build` draws them with this seed."""
    (layer,) = head_layers(model)
    rng = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
    return [NETWORKS[model.name].draw(rng, layer.name, tuple(weight.shape)) for weight in layer.weights]


def train_heads(
    model: "keras.Model",
    features,
    labels: np.ndarray,
    rows: Sequence[np.ndarray],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int = 20,
    optimizer: str = "adam",
    val: Sequence[np.ndarray] | None = None,
    follow: Follow | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train many heads of one frozen backbone: each of G groups (rows, seed) with each of L learning rates.

    Each head is what `training.train` would make of it: first weights and order of the epochs follow from its
    seed, the optimiser is fresh, Adam as Keras computes it with epsilon 1e-8, or SGD with momentum 0.9.

    All are trained at once, in NumPy and float32 (`many_heads`). Linear heads (ResNet, DenseNet): 45 of them
    for 100 epochs of 2,000 vectors of 512 take some seconds. SqueezeNet's read their feature maps once per
    epoch and group, for all learning rates: those of 2,000 images of 13x13x512 take some seconds each time.

    Args:
        model: As built by `networks.build`, for the structure of its head; its weights end as they were.
        features: One row per image: `features.Features` or an array.
        labels: Class index per image.
        rows: Rows that an epoch shows, for each group; a row may be repeated.
        seeds: One per group.
        val: Rows whose logits `follow` gets, for each group; none without it.
        follow: Called as `follow(epoch, group, rate, train_loss, val_logits, weights)` after each epoch of
            each head; `weights` is its kernel and bias, to be copied by whoever keeps them.
    Returns:
        Kernels, shape `(G, L, *kernel)`, and biases, shape `(G, L, classes)`, after the last epoch.
    Raises:
        ValueError: Unknown optimiser, or numbers of groups that differ.
    """
    val = [np.empty(0, np.int64)] * len(rows) if val is None else val
    if not len(rows) == len(seeds) == len(val):
        raise ValueError(
            "`rows`, `seeds` and `val` must be of the same groups. "
            f"Received: {len(rows)}, {len(seeds)} and {len(val)}"
        )
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {list(OPTIMIZERS)}. Received: {optimizer!r}")
    # Groups with most steps first, so that those still in an epoch are always the first ones.
    groups = np.argsort([-len(part) for part in rows], kind="stable")
    rows, seeds, val = ([part[group] for group in groups] for part in (rows, seeds, val))
    parameters, shape = _first(model, seeds, len(learning_rates)), first_weights(model, 0)[0].shape
    step = OPTIMIZERS[optimizer](parameters, np.asarray(learning_rates, "float32"))
    used = np.unique(np.concatenate([*rows, *val]))
    learner = (Vectors if len(features.shape) == 2 else Maps)(model, features, labels, used, seeds)
    for epoch in range(1, epochs + 1):
        losses = _epoch(learner, parameters, step, rows, epoch, batch_size)
        if follow:
            for place, group in enumerate(groups):
                scores = learner.logits(parameters, place, val[place])
                for rate, score in enumerate(scores):
                    weights = [parameters[0][place][:, rate], parameters[1][place, rate]]
                    weights[0] = weights[0].reshape(shape)
                    follow(epoch, int(group), rate, losses[place, rate], score, weights)
    back = np.argsort(groups)
    kernels = parameters[0][back].swapaxes(1, 2)
    return kernels.reshape(*kernels.shape[:2], *shape), parameters[1][back]


def _epoch(learner, parameters, step, rows, epoch: int, batch_size: int) -> np.ndarray:
    """One epoch of all groups; its mean losses, shape `(G, L)`."""
    size, losses = np.array([len(part) for part in rows]), 0
    orders = [
        np.random.default_rng([seed, epoch]).permutation(part)
        for seed, part in zip(learner.seeds, rows, strict=True)
    ]
    for index, start in enumerate(range(0, size[0], batch_size)):
        shown = [order[start : start + batch_size] for order in orders[: (size > start).sum()]]
        gradients, loss = learner.gradients(parameters, shown, epoch, index)
        losses += np.pad(loss * [[len(part)] for part in shown], ((0, len(rows) - len(shown)), (0, 0)))
        step(gradients)
    return losses / size[:, None]


def _first(model, seeds, rates: int) -> list[np.ndarray]:
    """Kernels `(G, features, L, classes)`, biases `(G, L, classes)`: so a step is one product per group."""
    kernels, biases = zip(*(first_weights(model, seed) for seed in seeds), strict=True)
    kernels = [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]
    return [np.stack([np.stack(part)] * rates, axis=-2) for part in (kernels, biases)]
