"""Training of heads on features that are already there: one as Keras does it, or many linear ones at once."""

import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from covidtf.training.batches import Batches
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, head_layers, set_trained_part, split_model
from covidtf.training.optimizers import compile_model

Follow = Callable[[int, int, int, float, np.ndarray, list[np.ndarray]], None]


def run_epoch(
    head: "keras.Model", features, labels: np.ndarray, order: np.ndarray, batch_size: int, callbacks=()
) -> float:
    """Train a compiled head for one epoch: its weights become those of the whole model, the backbone frozen.

    Args:
        head: The second of `networks.split_model`, compiled. With `steps_per_execution` set to the steps of
            an epoch, an epoch on vectors takes half the time.
        features: `features.Features` or an array, one row per image. Vectors are gathered for the whole
            epoch, feature maps batch by batch.
        labels: Class index per image.
        order: Rows in the order shown; the last batch may be smaller.
    Returns:
        The mean loss over the epoch, while weights change.
    """
    if len(features.shape) == 2:
        shown = {"x": features[order], "y": labels[order], "batch_size": batch_size}
    else:
        shown = {"x": Batches(features, labels, order, batch_size)}
    return float(head.fit(**shown, shuffle=False, verbose=0, callbacks=list(callbacks)).history["loss"][0])


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


def seed_dropout(model: "keras.Model", seed: int, epoch: int) -> None:
    """Set the state of each dropout by (seed, epoch, place in the whole model); its head shares it."""
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Dropout):
            state = np.random.SeedSequence([seed, epoch, index]).generate_state(1) >> 1
            layer.seed_generator.state.assign(np.array([state[0], 0]))


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

    Linear heads (ResNet, DenseNet) are trained all at once, in NumPy and float32: 45 of them for 100 epochs
    of 2,000 vectors of 512 take some seconds. Other heads (SqueezeNet's, with its dropout) are trained one
    after the other in Keras and read all feature maps in each epoch: 100 epochs of 2,000 maps of 13x13x512
    take minutes for each head.

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
    if optimizer not in _STEPS:
        raise ValueError(f"`optimizer` must be one of {list(_STEPS)}. Received: {optimizer!r}")
    follow = follow or (lambda *_: None)
    work = _train_linear if isinstance(split_model(model)[1].layers[1], keras.layers.Dense) else _train_others
    return work(
        model, features, labels, rows, seeds, learning_rates, epochs, batch_size, optimizer, val, follow
    )


def _train_others(
    model, features, labels, rows, seeds, learning_rates, epochs, batch_size, optimizer, val, follow
):
    (layer,), head = head_layers(model), split_model(model)[1]
    kept = layer.get_weights()
    set_trained_part(model, "head")
    settings = SimpleNamespace(optimizer=optimizer, learning_rate=learning_rates[0], schedule="constant")
    compile_model(head, settings, epochs, steps=1)
    # Compiled once: the same optimiser is set back to its start for each head.
    fresh, ends = [keras.ops.convert_to_numpy(variable) for variable in head.optimizer.variables], []
    for group, seed in enumerate(seeds):
        for rate, learning_rate in enumerate(learning_rates):
            layer.set_weights(first_weights(model, seed))
            for variable, value in zip(head.optimizer.variables, fresh, strict=True):
                variable.assign(value)
            head.optimizer.learning_rate = learning_rate
            for epoch in range(1, epochs + 1):
                seed_dropout(model, seed, epoch)
                loss = run_epoch(head, features, labels, _order(seed, epoch, rows[group]), batch_size)
                scores = logits(head, features, val[group])
                follow(epoch, group, rate, loss, scores, layer.get_weights())
            ends.append(layer.get_weights())
    layer.set_weights(kept)
    shape = len(seeds), len(learning_rates)
    return tuple(np.stack(end).reshape(*shape, *end[0].shape) for end in zip(*ends, strict=True))


def _train_linear(
    model, features, labels, rows, seeds, learning_rates, epochs, batch_size, optimizer, val, follow
):
    # Groups with most steps first, so that those still in an epoch are always the first ones.
    groups = np.argsort([-len(part) for part in rows], kind="stable")
    used = np.unique(np.concatenate([*rows, *val]))
    table, truth = features[used], np.eye(model.output.shape[-1], dtype="float32")[labels[used]]
    rows, val = ([np.searchsorted(used, part) for part in parts] for parts in (rows, val))
    parameters = _first(model, [seeds[group] for group in groups], len(learning_rates))
    step = _STEPS[optimizer](parameters, np.asarray(learning_rates, "float32"))
    size = np.array([len(rows[group]) for group in groups])
    for epoch in range(1, epochs + 1):
        take = np.zeros((len(groups), size[0]), np.int64)
        for place, group in enumerate(groups):
            take[place, : size[place]] = _order(seeds[group], epoch, rows[group])
        losses = np.zeros((len(groups), len(learning_rates)))
        for start in range(0, size[0], batch_size):
            left = np.minimum(size[size > start] - start, batch_size)
            shown = take[: len(left), start : start + batch_size]
            real = np.arange(shown.shape[1]) < left[:, None]
            weight = (real / left[:, None]).astype("float32")
            gradients, loss = _gradients(parameters, table[shown], truth[shown], weight)
            losses[: len(left)] += loss * left[:, None]
            step(gradients)
        for place, group in enumerate(groups):
            scores = np.einsum("mf,flc->lmc", table[val[group]], parameters[0][place], optimize=True)
            scores += parameters[1][place][:, None]
            for rate, score in enumerate(scores):
                weights = [parameters[0][place][:, rate], parameters[1][place, rate]]
                follow(epoch, int(group), rate, losses[place, rate] / size[place], score, weights)
    back = np.argsort(groups)
    return parameters[0][back].swapaxes(1, 2), parameters[1][back]


def _order(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _first(model, seeds, rates: int) -> list[np.ndarray]:
    """Kernels `(G, features, L, classes)`, biases `(G, L, classes)`: so a step is one product per group."""
    kernels, biases = zip(*(first_weights(model, seed) for seed in seeds), strict=True)
    return [np.stack([np.stack(part)] * rates, axis=-2) for part in (kernels, biases)]


def _gradients(parameters, x, truth, weight) -> tuple[list[np.ndarray], np.ndarray]:
    """Gradients for the first groups' batches, and their mean cross-entropies `(groups, L)`."""
    count, inputs = x.shape[0], x.shape[2]
    kernels, biases = (values[:count] for values in parameters)
    rates, classes = biases.shape[1:]
    scores = (x @ kernels.reshape(count, inputs, -1)).reshape(*x.shape[:2], rates, classes) + biases[:, None]
    scores -= scores.max(axis=-1, keepdims=True)
    shares = np.exp(scores)
    total = shares.sum(axis=-1, keepdims=True)
    truth = truth[:, :, None]
    loss = (np.log(total[..., 0]) - (scores * truth).sum(axis=-1)) * weight[..., None]
    error = (shares / total - truth) * weight[..., None, None]
    kernel = x.swapaxes(1, 2) @ error.reshape(*x.shape[:2], -1)
    return [kernel.reshape(kernels.shape), error.sum(axis=1)], loss.sum(axis=1)


def _adam(parameters: list[np.ndarray], learning_rates: np.ndarray) -> Callable:
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


def _sgd(parameters: list[np.ndarray], learning_rates: np.ndarray) -> Callable:
    moments = [np.zeros_like(values) for values in parameters]

    def step(gradients):
        for values, moment, gradient in zip(parameters, moments, gradients, strict=True):
            moment = moment[: len(gradient)]
            moment *= np.float32(0.9)
            moment -= gradient * learning_rates[:, None]
            values[: len(gradient)] += moment

    return step


_STEPS = {"adam": _adam, "sgd": _sgd}
