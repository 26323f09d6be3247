"""Heads on features: the weights that training the whole network with a frozen backbone gives."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from covidtf.training.batches import Batches
from covidtf.training.devices import keras
from covidtf.training.features import features
from covidtf.training.heads import first_weights, logits, run_epoch, seed_dropout, train_heads
from covidtf.training.networks import build, head_layers, set_trained_part, split_model
from covidtf.training.optimizers import compile_model

SIZE, EPOCHS, BATCH = 64, 3, 4
LABELS = np.arange(18) % 2
ROWS = np.array([0, 1, 2, 3, 5, 5, 8, 9, 10, 12, 13])
VAL = np.array([4, 6, 7, 14, 15])


@pytest.fixture(scope="module")
def images():
    """Grey images, brighter in one class."""
    noise = np.random.default_rng(1).integers(0, 150, (len(LABELS), SIZE, SIZE, 1))
    return (noise + 80 * LABELS[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def network(images, tmp_path_factory):
    """Network by name, with batch normalisations that are not the identity, and its features."""

    @functools.cache
    def make(name):
        model, rng = build(name, 2, size=SIZE, seed=6), np.random.default_rng(2)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                shape = (4, layer.gamma.shape[0])
                layer.set_weights(rng.uniform(0.5, 1.5, shape) * [[1], [0.2], [0.2], [1]])
        return model, features(model, images, np.concatenate([ROWS, VAL]), tmp_path_factory.mktemp(name))

    return make


def start(model, part, optimizer, rate, seed):
    """Fresh head and optimiser."""
    head_layers(model)[0].set_weights(first_weights(model, seed))
    set_trained_part(model, "head")
    settings = SimpleNamespace(optimizer=optimizer, learning_rate=rate, schedule="constant")
    compile_model(part, settings, EPOCHS, -(-len(ROWS) // BATCH))


def plain(model, images, optimizer, rate, seed=6, rows=ROWS):
    """Head weights, losses and val logits of the whole network, trained as `training.train` does."""
    start(model, model, optimizer, rate, seed)
    losses = []
    for epoch in range(1, EPOCHS + 1):
        seed_dropout(model, seed, epoch)
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        shown = Batches(images, LABELS, order, BATCH)
        losses.append(model.fit(shown, shuffle=False, verbose=0).history["loss"][0])
    scores = model.predict(images[VAL].astype("float32"), verbose=0)
    return [*head_layers(model)[0].get_weights(), losses, scores]


def same(got, wanted):
    """Equal to 1e-6, losses and logits to a rounding of theirs."""
    for left, right in zip(got[:2], wanted[:2], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got[2], wanted[2], rtol=1e-5)
    np.testing.assert_allclose(got[3], wanted[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "optimizer", "rate"),
    [
        ("ResNet18", "adam", 1e-3),
        ("ResNet18", "sgd", 1e-3),
        ("SqueezeNet1_0", "adam", 1e-3),
        ("SqueezeNet1_0", "sgd", 1e-2),
    ],
)
def test_a_head_on_features_is_the_frozen_networks(network, images, name, optimizer, rate):
    """With dropout and an uneven last batch: weights, loss of each epoch and logits on val."""
    model, values = network(name)
    wanted = plain(model, images, optimizer, rate)
    assert np.abs(wanted[0] - first_weights(model, 6)[0]).max() > 1e-3
    head = split_model(model)[1]
    start(model, head, optimizer, rate, 6)
    head.steps_per_execution = 3
    losses = []
    for epoch in range(1, EPOCHS + 1):
        seed_dropout(model, 6, epoch)
        order = np.random.default_rng([6, epoch]).permutation(ROWS)
        losses.append(run_epoch(head, values, LABELS, order, BATCH))
    same([*head_layers(model)[0].get_weights(), losses, logits(head, values, VAL, 2)], wanted)
    assert logits(head, values, VAL[:0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "optimizer", "rates", "rows", "compared"),
    [
        ("ResNet18", "adam", (1e-3, 3e-3), [ROWS[:7], ROWS, ROWS[2:]], [(0, 1), (1, 0)]),
        ("ResNet18", "sgd", (1e-4, 1e-3), [ROWS[:7], ROWS, ROWS[2:]], [(1, 1), (2, 0)]),
        ("SqueezeNet1_0", "adam", (1e-2, 1e-3), [ROWS[:7], ROWS, ROWS[2:]], [(0, 1), (2, 0)]),
    ],
)
def test_many_heads_are_each_what_a_run_gives(network, images, name, optimizer, rates, rows, compared):
    """Groups of other rows, seeds and numbers of steps: weights, losses and logits of each head."""
    model, values = network(name)
    seeds, followed, kept = [6, 7, 6][: len(rows)], {}, model.get_weights()
    kernels, biases = train_heads(
        *(model, values, LABELS, rows, seeds, rates, EPOCHS, BATCH, optimizer),
        val=[VAL] * len(rows),
        follow=lambda epoch, group, rate, *row: followed.update({(group, rate, epoch): row}),
    )
    for got, wanted in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert len(followed) == len(rows) * len(rates) * EPOCHS
    for group, rate in compared:
        losses = [followed[group, rate, epoch][0] for epoch in range(1, EPOCHS + 1)]
        _, scores, weights = followed[group, rate, EPOCHS]
        np.testing.assert_array_equal(weights[0], kernels[group, rate])
        got = [kernels[group, rate], biases[group, rate], losses, scores]
        same(got, plain(model, images, optimizer, rates[rate], seeds[group], rows[group]))


def test_the_first_weights_are_those_of_the_network():
    """What `build` draws with a seed, whatever the seed of the model at hand."""
    for name in ("ResNet18", "SqueezeNet1_1"):
        model = build(name, 3, size=32, seed=11)
        for got, wanted in zip(first_weights(model, 11), head_layers(model)[0].get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_groups_and_optimisers_that_do_not_fit_are_refused():
    """The error says what was wanted and what came."""
    model, values = build("ResNet18", 2, size=32), np.zeros((4, 512), "float32")
    with pytest.raises(ValueError, match=r"same groups. Received: 2, 1 and 2"):
        train_heads(model, values, LABELS, [np.arange(4)] * 2, [0], [1e-3], 1)
    with pytest.raises(ValueError, match=r"'sgd'\]. Received: 'adamw'"):
        train_heads(model, values, LABELS, [np.arange(4)], [0], [1e-3], 1, optimizer="adamw")
