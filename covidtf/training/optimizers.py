"""What training minimises and how: loss, optimiser and learning rate of a stage."""

import itertools
import math
from collections.abc import Callable

from covidtf.training.devices import keras

WARM_UP = 0.05  # share of a cosine's steps that the learning rate rises


def compile_model(
    model: "keras.Model", config, epochs: int, steps: int, at_once: int = 1, loss: "keras.losses.Loss" = None
) -> None:
    """Give `model` a fresh optimiser for one stage.

    Args:
        model: Its trained part is chosen already (`networks.set_trained_part`).
        config: A `covidtf.config.TrainConfig`.
        epochs: Of this stage.
        steps: Of each epoch.
        at_once: Steps that one call executes; callbacks see the last of them.
        loss: Of `losses.of`; without it cross-entropy.
    Raises:
        ValueError: Unknown optimiser or schedule.
    """
    rate = _schedule(config, epochs, steps)
    if config.optimizer not in RULES:
        raise ValueError(f"`optimizer` must be one of {list(RULES)}. Received: {config.optimizer!r}")
    model.compile(
        AtOnce(*RULES[config.optimizer], learning_rate=rate),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA halves the speed of TensorFlow's CPU steps and is not deterministic on its GPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        steps_per_execution=at_once,
    )
    model.optimizer.build(model.trainable_variables)


class AtOnce(keras.optimizers.Optimizer):
    """An optimiser whose step is one calculation on all parameters, laid end to end in a vector.

    The numbers are those of Keras' optimisers, which calculate with each parameter by itself: a network of
    364 parameters is 364 times Adam's 30 operations, to be traced before the first step and started in each.

    Args:
        rule: `rule(gradient, step, learning_rate, *states)` gives the change of the parameters and the next
            states; all are vectors but the step, counted from 1, and the learning rate.
        states: How many vectors the rule keeps; they begin with zeros.
        learning_rate: A number, or a Keras schedule.
    """

    def __init__(self, rule: Callable, states: int, learning_rate):
        super().__init__(learning_rate, name=rule.__name__.strip("_"))
        self.rule, self.count, self.states = rule, states, []

    def build(self, variables: list) -> None:
        """Make the states for these parameters."""
        if self.built:
            return
        super().build(variables)
        self.sizes = [math.prod(variable.shape) for variable in variables]
        self.states = [self.add_variable((sum(self.sizes),), name=f"state{i}") for i in range(self.count)]

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Change the parameters; the gradients are of all of them, in the order they were built with."""
        ops, variables = keras.ops, trainable_variables or self._trainable_variables
        gradient = ops.concatenate([ops.reshape(part, (-1,)) for part in grads])
        step = ops.cast(self.iterations + 1, "float32")
        states = [ops.convert_to_tensor(state) for state in self.states]
        change, *states = self.rule(gradient, step, self.learning_rate, *states)
        for variable, state in zip(self.states, states, strict=True):
            variable.assign(state)
        ends = list(itertools.accumulate(self.sizes[:-1]))
        # TensorFlow refuses to split at no place.
        parts = ops.split(change, ends) if ends else [change]
        for variable, part in zip(variables, parts, strict=True):
            self.assign_add(variable, ops.reshape(part, variable.shape))
        self.iterations.assign_add(1)


def _adam(gradient, step, learning_rate, mean, square):
    # As Keras orders it, and with PyTorch's epsilon, which the published results come from.
    ops = keras.ops
    alpha = learning_rate * ops.sqrt(1 - ops.power(0.999, step)) / (1 - ops.power(0.9, step))
    mean = mean + (gradient - mean) * (1 - 0.9)
    square = square + (ops.square(gradient) - square) * (1 - 0.999)
    return -(mean * alpha) / (ops.sqrt(square) + 1e-8), mean, square


def _sgd(gradient, step, learning_rate, moment):
    moment = moment * 0.9 - gradient * learning_rate
    return moment, moment


# An optimiser's rule and how many vectors it keeps.
RULES = {"adam": (_adam, 2), "sgd": (_sgd, 1)}


def _schedule(config, epochs: int, steps: int):
    """A number, or a function of the optimiser's steps, so that a checkpoint holds where it is."""
    rate, last = config.learning_rate, epochs * steps
    if config.schedule == "constant":
        return rate
    if config.schedule == "step":
        # PyTorch's StepLR(7, 0.1), of the published code.
        ends = list(range(7 * steps, last, 7 * steps))
        # Keras' boundary belongs to the interval before it.
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [end - 1 for end in ends] or [last], [rate * 0.1**i for i in range(max(len(ends), 1) + 1)]
        )
    if config.schedule == "cosine":
        rise = max(1, round(WARM_UP * last))
        return keras.optimizers.schedules.CosineDecay(
            rate / rise, max(1, last - rise), warmup_target=rate, warmup_steps=rise
        )
    raise ValueError(f"`schedule` must be constant, step or cosine. Received: {config.schedule!r}")
