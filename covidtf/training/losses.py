"""Losses of one head, weighted by class, and of a network with auxiliary heads."""

import numpy as np

from covidtf.training.devices import keras

__all__ = ["CrossEntropy", "Generalized", "SelfAdaptiveLoss", "Symmetric", "effective_number_weights", "of"]


def effective_number_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Weights of classes: `(1 - beta) / (1 - beta^n)`, scaled so that they sum to the number of classes.

    Args:
        counts: Images of each class in train, at least 1, shape `(classes,)`.
        beta: In [0, 1): 0 weighs all classes alike; towards 1 a weight goes to the inverse of its count.
    Returns:
        float64, shape `(classes,)`.
    Raises:
        ValueError: If an argument is out of range.
    Reference: Cui et al. 2019, arXiv 1901.05555.

    >>> effective_number_weights([1256, 2674, 980], 0.999).round(3).tolist()
    [1.03, 0.791, 1.179]
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not 0 <= beta < 1:
        raise ValueError(f"`beta` must be in [0, 1). Received: {beta}")
    if not (counts >= 1).all():
        raise ValueError(f"`counts` must be at least 1. Received: {counts.tolist()}")
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(weights) / weights.sum()


class CrossEntropy(keras.losses.Loss):
    """`-w_y log p_y`, p being the softmax of the logits.

    Args:
        weights: `w` of each class, shape `(classes,)`.
    Reference: Cui et al. 2019, arXiv 1901.05555, for the weights.
    """

    def __init__(self, weights: np.ndarray):
        super().__init__()
        self.weights = np.asarray(weights, dtype=np.float32)

    def call(self, y_true, y_pred):
        """Loss of each image and head: labels `(n,)`, logits `(n, ..., classes)`; `(n, ...)`."""
        ops, classes = keras.ops, len(self.weights)
        logs = ops.log_softmax(y_pred, axis=-1)
        chosen = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes, dtype=logs.dtype)
        chosen = ops.reshape(chosen, (-1, *(1,) * (len(logs.shape) - 2), classes))
        return ops.sum(chosen * self.weights, axis=-1) * self.unweighted(logs, chosen)

    def unweighted(self, logs, chosen):
        """From the logarithms of p and the labels as 0 and 1, both with the classes as the last axis."""
        return -keras.ops.sum(chosen * logs, axis=-1)


class Generalized(CrossEntropy):
    """Generalized cross-entropy `w_y (1 - p_y^q) / q`, q = 0.7: bounded, so that a wrong label pulls less.

    Reference: Zhang and Sabuncu 2018, arXiv 1805.07836; q as there.
    """

    Q = 0.7

    def unweighted(self, logs, chosen):
        """As `CrossEntropy.unweighted`."""
        return -keras.ops.expm1(self.Q * keras.ops.sum(chosen * logs, axis=-1)) / self.Q


class Symmetric(CrossEntropy):
    """Symmetric cross-entropy `w_y (0.1 CE + 1.0 RCE)`, where RCE is the reverse, `-sum_k p_k log q_k`.

    q is the label, 1 of its class and 0 of the others, and `log 0` is `log 1e-4`, as in the authors' code; so
    `RCE = -log(1e-4) (1 - p_y)`. The factors are those of the paper for CIFAR-10.

    Reference: Wang et al. 2019, arXiv 1908.06112.
    """

    ALPHA, BETA, LOG_ZERO = 0.1, 1.0, float(np.log(1e-4))

    def unweighted(self, logs, chosen):
        """As `CrossEntropy.unweighted`."""
        reverse = -self.LOG_ZERO * keras.ops.sum(keras.ops.exp(logs) * (1 - chosen), axis=-1)
        return self.ALPHA * super().unweighted(logs, chosen) + self.BETA * reverse


LOSSES = {"cross_entropy": CrossEntropy, "generalized": Generalized, "symmetric": Symmetric}


class SelfAdaptiveLoss(keras.losses.Loss):
    """Deep supervision with weights of the heads that are learnt: a reconstruction of DSN-SAAL's loss.

    `L = sum_m [ L_m / (2 c_m^2) + log(1 + c_m^2) ]`, over the main head and the auxiliary heads m, and
    `L_m = mean_i w_{y_i} l(y_i, p_{m,i})`, over the images i of a batch, with

    - the sum over heads at several depths: deep supervision, Lee et al. 2015, arXiv 1409.5185;
    - `1 / (2 c_m^2)` and the regulariser `log(1 + c_m^2)`, without which all weights would go to 0: Liebel
      and Koerner 2018, arXiv 1805.06334; c_m is trained with the network and begins with 1, as there;
    - `w_c = (1 - beta) / (1 - beta^{n_c})`, scaled (`effective_number_weights`): the effective number of the
      n_c slices of class c, Cui et al. 2019, arXiv 1901.05555;
    - `l`: cross-entropy, or one that is robust to noisy labels (`Generalized`, `Symmetric`).

    Hu et al. 2021 publish, where we could read it, that data overlap and noisy labels are met by "the
    effective number of samples and a weighting regularization item" in a "multi-scale, deep supervised
    network", all parameters learned jointly. Not published, hence ours: the backbone, number and place of the
    auxiliary heads, the exact regulariser, whether the main head's weight is learnt too, beta, l, optimiser
    and epochs.

    What is trained is `log c_m / 10`, so that no step can bring c_m to 0 or across it, and that Adam, which
    moves each number by its learning rate, moves c_m within hundreds of steps (SGD moves log c_m a hundred
    times as fast as the rest). Where L_m stays the same, `c_m^2` goes to `(L_m + sqrt(L_m^2 + 8 L_m)) / 4`.

    With `learned=False` it is deep supervision as usual, `L = sum_m alpha_m L_m`, alpha being 1 for the main
    head.

    Args:
        each: `l` with its class weights, a `CrossEntropy`.
        learned: Whether the last column of the outputs is `log c_m`, or `alpha_m`.
    Reference: Hu et al. 2021, Neurocomputing 458:232-245.
    """

    def __init__(self, each: CrossEntropy, learned: bool = True):
        super().__init__()
        self.each, self.learned = each, learned

    def call(self, y_true, y_pred):
        """Loss of each image: labels `(n,)`, outputs `(n, heads, classes + 1)` of `supervised.Heads`."""
        ops = keras.ops
        losses, last = self.each.call(y_true, y_pred[..., :-1]), y_pred[..., -1]
        if not self.learned:
            return ops.sum(last * losses, axis=-1)
        return ops.sum(losses * ops.exp(-2 * last) / 2 + ops.softplus(2 * last), axis=-1)


def of(config, counts: np.ndarray) -> "keras.losses.Loss":
    """The loss that `config` asks for; of a plain `covidtf.config.TrainConfig` Keras' cross-entropy.

    Args:
        config: A `covidtf.config.TrainConfig` or `DeepConfig`.
        counts: Images of each class that an epoch shows, shape `(classes,)`.
    Raises:
        ValueError: Unknown `loss`; `beta` out of range.
    """
    if not hasattr(config, "loss"):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if config.loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {list(LOSSES)}. Received: {config.loss!r}")
    each = LOSSES[config.loss](effective_number_weights(counts, config.beta))
    return each if config.auxiliary == "none" else SelfAdaptiveLoss(each, config.auxiliary == "learned")
