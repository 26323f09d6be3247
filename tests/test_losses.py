"""Tests of covidtf.training.losses: published numbers, NumPy in float64, and where learned weights end."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from covidtf.training import losses
from covidtf.training.devices import keras
from covidtf.training.losses import (
    CrossEntropy,
    Generalized,
    SelfAdaptiveLoss,
    Symmetric,
    effective_number_weights,
)
from covidtf.training.networks.fusion import SPEED, Heads
from covidtf.training.optimizers import compile_model

SLICES = [1256, 2674, 980]
WEIGHTS = np.array([1.2, 0.5, 1.3])
LABELS = np.array([0, 2, 1, 2, 0])


@pytest.mark.parametrize(
    ("beta", "wanted"),
    [
        (0.0, [1, 1, 1]),
        (0.9, [1, 1, 1]),
        (0.99, [1, 1, 1]),
        (0.999, [1.030, 0.791, 1.179]),
        (0.9999, [1.084, 0.545, 1.371]),
    ],
)
def test_class_weights_of_the_published_counts(beta, wanted):
    """COVID19-Diag's training slices give the weights worked out for them, which sum to 3."""
    found = effective_number_weights(SLICES, beta)
    np.testing.assert_allclose(found, wanted, atol=5e-4)
    assert found.sum() == pytest.approx(3)


def test_class_weights_tend_to_the_inverse_of_the_counts():
    """Towards beta = 1 two classes of 1 and 3 images weigh 3/2 and 1/2."""
    np.testing.assert_allclose(effective_number_weights([1, 3], 1 - 1e-9), [1.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("counts", "beta", "message"),
    [
        ([1, 2], 1.0, r"`beta` must be in \[0, 1\). Received: 1.0"),
        ([1, 2], -0.1, "`beta` must be"),
        ([0, 2], 0.9, r"`counts` must be at least 1. Received: \[0.0, 2.0\]"),
    ],
)
def test_class_weights_refuse_what_has_none(counts, beta, message):
    """Beta of 1 and a class without images are errors."""
    with pytest.raises(ValueError, match=message):
        effective_number_weights(counts, beta)


def reference(kind, labels, logits):
    """Loss of each image and head in float64, as the papers write them."""
    p = softmax(logits.astype(np.float64), axis=-1)
    q = np.eye(3)[labels]
    q = q.reshape(len(labels), *[1] * (p.ndim - 2), 3)
    chosen, weight = (p * q).sum(axis=-1), (WEIGHTS * q).sum(axis=-1)
    if kind is CrossEntropy:
        return -weight * np.log(chosen)
    if kind is Generalized:
        return weight * (1 - chosen**0.7) / 0.7
    reverse = -(p * np.log(np.where(q == 1, 1, 1e-4))).sum(axis=-1)
    return weight * (0.1 * -np.log(chosen) + 1.0 * reverse)


def random_outputs(heads=3):
    """Outputs of `Heads`: logits and, last, what weights them."""
    return np.random.default_rng(0).normal(0, 2, (len(LABELS), heads, 4)).astype("float32")


def whole(kind, learned, outputs):
    """The loss over heads in float64, from c itself as it is published."""
    each, last = reference(kind, LABELS, outputs[..., :-1]), outputs[..., -1].astype(np.float64)
    if not learned:
        return (last * each).sum(axis=1).mean()
    c = np.exp(last)
    return (each / (2 * c**2) + np.log(1 + c**2)).sum(axis=1).mean()


@pytest.mark.parametrize("kind", [CrossEntropy, Generalized, Symmetric])
def test_losses_of_one_head_are_the_papers(kind):
    """The mean over images equals NumPy's, for logits `(n, classes)`."""
    logits = random_outputs()[:, 0, :-1]
    found = float(kind(WEIGHTS)(LABELS, logits))
    assert found == pytest.approx(reference(kind, LABELS, logits).mean(), rel=1e-5)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("kind", [CrossEntropy, Generalized, Symmetric])
def test_the_loss_over_heads_is_the_published_one(kind, learned):
    """Learned weights with their regulariser, and fixed ones, equal NumPy's."""
    outputs = random_outputs()
    found = float(SelfAdaptiveLoss(kind(WEIGHTS), learned)(LABELS, outputs))
    assert found == pytest.approx(whole(kind, learned, outputs), rel=1e-5)


class Free(keras.layers.Layer):
    """A variable as outputs, so that one step of SGD at rate 1 shows the loss's gradient."""

    def __init__(self, values):
        super().__init__()
        self.values = self.add_weight(shape=values.shape, initializer="zeros")
        self.values.assign(values)

    def call(self, x):
        """All values, whatever the input."""
        return keras.ops.reshape(x, (-1, 1, 1)) * 0 + self.values


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("kind", [CrossEntropy, Generalized, Symmetric])
def test_gradients_are_finite_differences(kind, learned):
    """The gradient by logits and by what weights the heads is the slope of NumPy's loss."""
    outputs = random_outputs(heads=2)
    layer = Free(outputs)
    model = keras.Sequential([keras.Input((1,), batch_size=len(LABELS)), layer])
    model.compile(keras.optimizers.SGD(1.0), SelfAdaptiveLoss(kind(WEIGHTS), learned), jit_compile=False)
    model.train_on_batch(np.zeros((len(LABELS), 1)), LABELS)
    found, wide = outputs - np.asarray(layer.values), outputs.astype(np.float64)
    slopes = np.zeros_like(wide)
    for place in np.ndindex(wide.shape):
        step = np.zeros_like(wide)
        step[place] = 1e-5
        slopes[place] = (whole(kind, learned, wide + step) - whole(kind, learned, wide - step)) / 2e-5
    np.testing.assert_allclose(found, slopes, atol=2e-6, rtol=2e-5)


def test_a_noisy_label_costs_at_most_so_much():
    """Certain of another class, the robust losses stay at 1/q and near 0.1 CE + 9.21; none is NaN."""
    logits = np.array([[2000.0, 0, -2000]], "float32")
    ones = np.ones(3)
    assert float(Generalized(ones)(np.array([1]), logits)) == pytest.approx(1 / 0.7)
    assert float(Symmetric(ones)(np.array([1]), logits)) == pytest.approx(200 - np.log(1e-4))
    assert float(CrossEntropy(ones)(np.array([1]), logits)) == pytest.approx(2000)


def test_without_weights_it_is_keras_cross_entropy():
    """Beta 0 and no auxiliary head is the loss of runs without deep supervision."""
    logits = random_outputs()[:, 0, :-1]
    config = SimpleNamespace(loss="cross_entropy", beta=0.0, auxiliary="none")
    wanted = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, logits)
    assert float(losses.of(config, np.array(SLICES))(LABELS, logits)) == pytest.approx(
        float(wanted), rel=1e-6
    )
    assert isinstance(losses.of(SimpleNamespace(), None), keras.losses.SparseCategoricalCrossentropy)


def test_an_unknown_loss_is_refused():
    """The error says which there are."""
    with pytest.raises(ValueError, match=r"`loss` must be one of \['cross_entropy', .* Received: 'focal'"):
        losses.of(SimpleNamespace(loss="focal", beta=0, auxiliary="none"), SLICES)


def weighted_model(logits):
    """A model whose heads give the same logits for ever, so that only their weights can be trained."""
    pixels = keras.Input((1,))
    heads = [
        keras.layers.Dense(3, kernel_initializer="zeros", bias_initializer=values, trainable=False)(pixels)
        for values in (keras.initializers.Constant(row) for row in logits)
    ]
    layer = Heads(["main", "auxiliary2", "auxiliary3"], name="heads")
    return keras.Model(pixels, layer(heads)), layer


LOGITS = [[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]]


def test_learned_weights_end_where_the_derivative_is_zero():
    """For constant losses, c^2 goes to the root of 2 c^4 = L (1 + c^2), worked out by hand."""
    model, layer = weighted_model(LOGITS)
    model.compile(
        keras.optimizers.SGD(0.2 / SPEED**2), SelfAdaptiveLoss(CrossEntropy(np.ones(3))), jit_compile=False
    )
    x, labels = np.zeros((4, 1)), np.ones(4, int)
    for _ in range(200):
        model.train_on_batch(x, labels)
    loss = -log_softmax(np.array(LOGITS), axis=1)[:, 1]
    root = (loss + np.sqrt(loss**2 + 8 * loss)) / 4
    np.testing.assert_allclose(2 * root**2, loss * (1 + root))
    np.testing.assert_allclose(np.exp(2 * np.asarray(layer.log_c)), root, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_learned_weights_move_with_the_projects_optimisers_and_nothing_else_moves_them(optimizer):
    """They begin with c = 1, go up where a head fits worse and down where better, and stay without a loss."""
    model, layer = weighted_model([LOGITS[0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    config = SimpleNamespace(optimizer=optimizer, learning_rate=0.001, schedule="constant")
    x, labels = np.zeros((4, 1)), np.ones(4, int)
    compile_model(model, config, 1, 5, loss=SelfAdaptiveLoss(CrossEntropy(np.ones(3))))
    assert (np.asarray(layer.log_c) == 0).all()
    for _ in range(5):
        model.train_on_batch(x, labels)
    log_c = np.asarray(layer.log_c)
    # At c = 1 the slope is 1 - L: L is 0.1, 1.1 and 1.55.
    assert log_c[0] < 0 < min(log_c[1:])
    compile_model(model, config, 1, 5, loss=Nothing())
    before = np.asarray(layer.log_c).copy()
    model.train_on_batch(x, labels)
    np.testing.assert_array_equal(np.asarray(layer.log_c), before)


class Nothing(keras.losses.Loss):
    """A loss that depends on no output."""

    def call(self, y_true, y_pred):
        """Zero per image."""
        return keras.ops.sum(y_pred * 0, axis=(1, 2))
