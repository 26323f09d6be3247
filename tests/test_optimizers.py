"""Tests of covidtf.training.optimizers: the learning rate over a stage."""

from types import SimpleNamespace

import numpy as np
import pytest

from covidtf.training.devices import keras
from covidtf.training.optimizers import compile_model


def rates(schedule, epochs, steps, optimizer="sgd"):
    """Learning rate before each step of a stage, as the optimiser reports it."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    config = SimpleNamespace(optimizer=optimizer, learning_rate=0.1, schedule=schedule)
    compile_model(model, config, epochs, steps)
    found = []
    for _ in range(epochs * steps):
        found.append(float(model.optimizer.learning_rate))
        model.train_on_batch(np.zeros((1, 1)), np.zeros(1))
    return np.array(found)


def test_constant_stays():
    """The rate is the same at every step."""
    np.testing.assert_allclose(rates("constant", 3, 4), 0.1)


def test_step_divides_by_ten_every_seven_epochs():
    """As PyTorch's StepLR(7, 0.1): epochs 1 to 7, 8 to 14 and the rest have rates a factor of 10 apart."""
    wanted = np.repeat([0.1, 0.01, 0.001], [14, 14, 4])
    np.testing.assert_allclose(rates("step", 16, 2), wanted, rtol=1e-5)


@pytest.mark.parametrize("epochs", [1, 7])
def test_step_of_few_epochs_is_constant(epochs):
    """A stage that ends before the first drop has one rate."""
    np.testing.assert_allclose(rates("step", epochs, 2), 0.1)


def test_cosine_rises_and_falls():
    """It rises in a straight line over the first twentieth and falls along half a cosine towards 0."""
    found = rates("cosine", 10, 10)
    assert found.argmax() == 5
    np.testing.assert_allclose(np.diff(found[:6], n=2), 0, atol=1e-8)
    wanted = 0.1 * (1 + np.cos(np.pi * np.arange(95) / 95)) / 2
    np.testing.assert_allclose(found[5:], wanted, rtol=1e-4, atol=1e-7)


def test_an_unknown_schedule_is_named():
    """A schedule that does not exist is an error with the known ones."""
    with pytest.raises(ValueError, match=r"`schedule` must be constant, step or cosine. Received: 'exp'"):
        rates("exp", 1, 1)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adam", lambda rate: keras.optimizers.Adam(rate, epsilon=1e-8)),
        ("sgd", lambda rate: keras.optimizers.SGD(rate, momentum=0.9)),
    ],
)
def test_steps_are_those_of_keras_optimisers(name, other):
    """Ten steps on parameters of three shapes leave what Keras' optimiser of each parameter leaves."""
    rng, found = np.random.default_rng(0), []
    inputs, labels = rng.normal(size=(10, 8, 4, 4, 1)).astype("float32"), rng.integers(0, 3, (10, 8))
    for ours in (True, False):
        layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((4, 4, 1)), *layers])
        draws = np.random.default_rng(1)
        model.set_weights([draws.normal(size=variable.shape) for variable in model.weights])
        config = SimpleNamespace(optimizer=name, learning_rate=0.05, schedule="constant")
        compile_model(model, config, epochs=1, steps=10)
        if not ours:
            model.compile(other(0.05), model.loss, jit_compile=False)
        for x, y in zip(inputs, labels, strict=True):
            model.train_on_batch(x, y)
        found.append(model.get_weights())
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_loss_scaling_goes_around_it():
    """In float16 Keras wraps the optimiser: the step is that of float32, to within the rounding."""
    found = []
    for policy in ("mixed_float16", "float32"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=policy)])
        model.set_weights([np.eye(3, 2), np.zeros(2)])
        config = SimpleNamespace(optimizer="sgd", learning_rate=0.1, schedule="constant")
        compile_model(model, config, epochs=1, steps=1)
        model.train_on_batch(np.ones((4, 3)), np.array([0, 1, 1, 1]))
        found.append(model.get_weights())
    assert np.abs(found[1][1]).min() > 0.01
    for half, full in zip(*found, strict=True):
        np.testing.assert_allclose(half, full, atol=1e-3)


def test_an_unknown_optimiser_is_named():
    """An optimiser that does not exist is an error with the known ones."""
    with pytest.raises(ValueError, match=r"`optimizer` must be one of .* Received: 'lion'"):
        rates("constant", 1, 1, optimizer="lion")
